"""The text that the pocket encoder is pretrained on: single texts and pairs of texts, never with a label.

Pairs are restatements, consequences, changed events, and questions with the sentences that answer them or do not, in
a mixture that says nothing about which is which. What a masked word of one text is, often stands in the other: this
teaches the encoder to compare texts, and its tasks then say what to look for.
"""

import random
from collections.abc import Iterator

from pocket.world.events import change, draw_event, generalise, question, reword, say, sentence
from pocket.world.opinions import INTENTS, activity, ask, judgement
from pocket.world.world_text import comparison, consequence, knowledge, quiz

VERSION = 1

Document = tuple[str, str | None]


def restated(rng: random.Random) -> Document:
    """An event and the same one in other words, sometimes with a part left out or changed."""
    first = draw_event(rng)
    second = reword(first, rng)
    form = rng.random()
    if form < 0.2:
        second = generalise(second, rng)
    elif form < 0.4:
        second = change(second, rng)
    pair = [say(first, rng), say(second, rng)]
    rng.shuffle(pair)
    return pair[0], pair[1]


def told(rng: random.Random) -> Document:
    """Two events in one text and one of them, perhaps with its parts mixed up, in the other."""
    first, second = draw_event(rng, place=0.3, time=0.3, trait=0.2), draw_event(rng, place=0.3, time=0.3, trait=0.2)
    link = rng.choice((". Then ", ", but ", " and "))
    text = say(first, rng, "active").rstrip(".") + link + _lower(say(second, rng, "active"))
    return text, say(reword(rng.choice((first, second)), rng, 0.3), rng)


def _lower(text: str) -> str:
    head = text.split(" ", 1)[0]
    return (
        text
        if head not in ("The", "It", "In", "At", "On", "Last", "After", "Before", "Two", "A")
        else text[0].lower() + text[1:]
    )


def asked(rng: random.Random) -> Document:
    """A question and a sentence about the same event."""
    told_of = draw_event(rng, place=0.7, time=0.6)
    present = [part for part in ("who", "what", "place", "time") if getattr(told_of, part)]
    return question(told_of, rng.choice(present), rng), say(reword(told_of, rng, 0.3), rng)


def wondered(rng: random.Random) -> Document:
    """Two questions with the same intent, or about the same activity."""
    intent, doing = rng.choice(list(INTENTS)), activity(rng)
    if rng.random() < 0.7:
        return ask(intent, doing, rng), ask(intent, doing, rng)
    return ask(intent, doing, rng), ask(rng.choice(list(INTENTS)), doing, rng)


def review(rng: random.Random) -> Document:
    """Some clauses of one mind, sometimes with a turn."""
    good = rng.random() < 0.5
    clauses = [sentence(judgement(good, rng)) for _ in range(rng.randint(2, 4))]
    if rng.random() < 0.3:
        clauses.append(sentence("but " + judgement(not good, rng)))
    return " ".join(clauses), None


def single(rng: random.Random) -> Document:
    """One or two events, told one after the other."""
    return " ".join(say(draw_event(rng), rng) for _ in range(rng.randint(1, 2))), None


def plain(rng: random.Random) -> Document:
    """What the pocket language model is pretrained on, its part without numbers."""
    return rng.choice((knowledge, comparison, consequence, quiz))(rng), None


# How often each kind of document is written, in percent.
MIX = {restated: 34, told: 16, asked: 14, wondered: 10, review: 10, single: 8, plain: 8}


def documents(stream: str) -> Iterator[Document]:
    """Yield (text, second text or None) without end from the named random stream ("train", "held-out", ...)."""
    rng = random.Random(f"pocket encoder corpus {VERSION} {stream}")
    kinds, weights = list(MIX), list(MIX.values())
    while True:
        yield rng.choices(kinds, weights)[0](rng)
