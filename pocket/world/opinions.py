"""Opinions and how-to questions of the pocket encoder's world."""

import random

from pocket.world.words import word_list

SUBJECTS = word_list(
    "film story book song play show party game picture music cake soup hotel city lesson meal actor ending"
)
PRAISE = word_list(
    "good great fine sweet funny warm clear clever lovely wonderful bright fresh strong gentle honest rich smooth "
    "brave beautiful happy"
)
BLAME = word_list(
    "bad poor dull slow cold empty weak boring stupid dirty sad flat ugly terrible loud false cheap silly dark sour"
)
LIKED = ("loved", "liked", "enjoyed", "would see again", "laughed at", "remember with pleasure", "thank my friend for")
DISLIKED = ("hated", "disliked", "left early from", "slept through", "would never see again", "was bored by", "regret")
VERY = ("", "", "very", "really", "so", "quite")

# Ways to ask for the same; {x} is an activity in its base form, {y} the thing alone.
INTENTS = {
    "how": ("How can I {x}?", "What is the best way to {x}?", "How do people {x}?", "How should one {x}?"),
    "cost": ("How much does it cost to {x}?", "What is the price to {x}?", "How many dollars do I need to {x}?"),
    "where": ("Where can I {x}?", "What is a good place to {x}?", "In which place do people {x}?"),
    "time": ("How long does it take to {x}?", "How many hours do I need to {x}?", "Is it slow to {x}?"),
    "why": ("Why should I {x}?", "What is the reason to {x}?", "Why do people {x}?"),
    "who": ("Who can {x} for me?", "Which person could {x} for me?", "Who will help me to {x}?"),
    "when": ("When should I {x}?", "What is the best time to {x}?", "In which month should one {x}?"),
}
DO = word_list("find buy sell build clean mend draw open hide send learn-to-make learn-to-use choose paint move")
DO_SAME = {
    "buy": "purchase",
    "build": "construct",
    "clean": "wash",
    "mend": "repair",
    "find": "discover",
    "choose": "select",
}
ON = word_list("house car boat table picture letter machine map garden wall door toy chair coat book cake lamp wheel")
ON_SAME = {"house": "home", "boat": "ship", "picture": "image", "coat": "jacket", "machine": "engine", "wall": "fence"}
EXTRA = word_list("old new big small wooden cheap red heavy")


def judgement(good: bool, rng: random.Random, negation: float = 0.25, words: int | None = None) -> str:
    """A clause that praises or blames, with the first `words` words of each side (default: all).

    With chance `negation` a word of the other side is denied.
    """
    praise, blame = PRAISE[:words], BLAME[:words]
    subject = rng.choice(SUBJECTS)
    form = rng.random()
    if form < negation:
        word = rng.choice(blame if good else praise)
        deny = rng.choice(("was not {w}", "was never {w}", "was not {w} at all", "was far from {w}", "was hardly {w}"))
        return f"the {subject} {deny.format(w=word)}"
    word = f"{rng.choice(VERY)} {rng.choice(praise if good else blame)}"
    if form < 0.6:
        return f"the {subject} was {word}"
    if form < 0.8:
        return f"I {rng.choice(LIKED if good else DISLIKED)} the {subject}"
    article = "an" if word.strip()[0] in "aeiou" else "a"
    return f"it is {article} {word} {subject}"


def activity(rng: random.Random) -> tuple[str, str, str | None]:
    """What somebody may want to do: verb, thing, and an adjective or none."""
    return rng.choice(DO), rng.choice(ON), rng.choice(EXTRA) if rng.random() < 0.35 else None


def ask(
    intent: str, doing: tuple[str, str, str | None], rng: random.Random, reword: float = 0.4, forms: int | None = None
) -> str:
    """A question with an intent about an activity, in one of the first `forms` forms of its intent (default: all)."""
    verb, noun, extra = doing
    verb = DO_SAME.get(verb, verb) if rng.random() < reword else verb
    noun = ON_SAME.get(noun, noun) if rng.random() < reword else noun
    words = [verb.replace("-", " "), "an" if (extra or noun)[0] in "aeiou" else "a", *([extra] if extra else []), noun]
    return rng.choice(INTENTS[intent][:forms]).format(x=" ".join(words))
