"""One generated question of each commonsense set: its key and its row, which has the real set's columns.

The key is the texts that tell the question from others, whatever the order of its answers and the names in it.
"""

import random
from collections.abc import Callable
from typing import Any

from pocket.world.words import capitalised, with_article
from pocket.world.worlds import CAUSES, FACTS, MATERIALS, NAMES

KIND, MATERIAL, PLACE, USE = range(4)  # columns of FACTS

# What can be said of a thing: as a sentence, as a question without a question mark, and as an open question.
_CLAIMS = {
    KIND: ("{thing} is {value}", "is {thing} {value}", "What is {thing}?"),
    MATERIAL: ("{thing} is made of {value}", "is {thing} made of {value}", "What is {thing} made of?"),
    PLACE: ("you find {thing} {value}", "do you find {thing} {value}", "Where do you find {thing}?"),
    USE: ("{thing} can {value}", "can {thing} {value}", "What can {thing} do for you?"),
}
# Things that somebody takes in the hand to do something.
_TOOLS = {
    thing: fact[USE] for thing, fact in FACTS.items() if fact[KIND] in ("a tool", "a thing", "clothing", "a vehicle")
}

Question = tuple[tuple[str, ...], dict[str, Any]]


def _others(rng: random.Random, values: Any, right: str, n: int) -> list[str]:
    """N different values that are not the right one."""
    return rng.sample(sorted(set(values) - {right}), n)


def _shuffled(rng: random.Random, right: str, wrong: list[str]) -> tuple[list[str], int]:
    """All answers in random order, and the place of the right one."""
    answers = [right, *wrong]
    rng.shuffle(answers)
    return answers, answers.index(right)


def _column(column: int) -> list[str]:
    return [str(fact[column]) for fact in FACTS.values()]


def _fact(rng: random.Random, columns: tuple[int, ...]) -> tuple[str, int, str]:
    """A thing, one of the columns, and the value that stands there."""
    thing, column = rng.choice(list(FACTS)), rng.choice(columns)
    return thing, column, str(FACTS[thing][column])


def boolq(rng: random.Random) -> Question:
    """A claim about a thing, after a passage about it."""
    thing, column, value = _fact(rng, (KIND, MATERIAL, PLACE, USE))
    true = rng.random() < 0.5
    claimed = value if true else _others(rng, _column(column), value, 1)[0]
    said = [column, rng.choice([other for other in _CLAIMS if other != column])]
    rng.shuffle(said)
    passage = " ".join(
        capitalised(_CLAIMS[c][0].format(thing=with_article(thing), value=FACTS[thing][c])) + "." for c in said
    )
    question = _CLAIMS[column][1].format(thing=with_article(thing), value=claimed)
    return (thing, question), {
        "question": question,
        "passage": passage,
        "idx": rng.randrange(10**4),
        "label": int(true),
    }


def piqa(rng: random.Random) -> Question:
    """A goal and two ways, of which one takes the wrong tool."""
    tool, use = rng.choice(list(_TOOLS.items()))
    (wrong,) = _others(rng, [other for other, its in _TOOLS.items() if its != use], tool, 1)
    ways, label = _shuffled(
        rng, f"You need {with_article(tool)} to {use}.", [f"You need {with_article(wrong)} to {use}."]
    )
    return (use, tool, wrong), {"goal": f"How do I {use}?", "sol1": ways[0], "sol2": ways[1], "label": label}


def siqa(rng: random.Random) -> Question:
    """What somebody does, or how somebody feels, when something happens."""
    case, name = rng.randrange(len(CAUSES)), rng.choice(NAMES)
    cause, _, *reactions = CAUSES[case]
    which = rng.randrange(2)
    wrong = _others(rng, [other[2 + which] for other in CAUSES], reactions[which], 2)
    answers, right = _shuffled(rng, reactions[which], wrong)
    question = ("What does {name} do then?", "How does {name} feel then?")[which]
    row = {"context": f"{name} sees that {cause}.", "question": question.format(name=name)}
    row |= {f"answer{letter}": answer for letter, answer in zip("ABC", answers, strict=True)}
    return (cause, question, *sorted(answers)), row | {"label": str(right + 1)}


def hellaswag(rng: random.Random) -> Question:
    """How a short text goes on."""
    cause, effect, *_ = rng.choice(CAUSES)
    wrong = _others(rng, [other[1] for other in CAUSES], effect, 3)
    endings, label = _shuffled(rng, f"{effect}.", [f"{other}." for other in wrong])
    name = rng.choice(NAMES)
    context = f"{name} looks out and sees that {cause}."
    return (cause, *sorted(endings)), {
        "ind": rng.randrange(10**4),
        "activity_label": "A day",
        "ctx_a": context,
        "ctx_b": "what happens then:",
        "ctx": f"{context} what happens then:",
        "endings": endings,
        "label": str(label),
    }


def winogrande(rng: random.Random) -> Question:
    """Two things and a sentence with a gap that only one of them fills."""
    tool, use = rng.choice(list(_TOOLS.items()))
    (wrong,) = _others(rng, [other for other, its in _TOOLS.items() if its != use], tool, 1)
    options, right = _shuffled(rng, tool, [wrong])
    first, second = rng.sample((tool, wrong), 2)
    sentence = f"{rng.choice(NAMES)} has {with_article(first)} and {with_article(second)}. You need the _ to {use}."
    return (use, tool, wrong), {
        "sentence": sentence,
        "option1": options[0],
        "option2": options[1],
        "answer": str(right + 1),
    }


def _lettered(rng: random.Random, stem: dict[str, str], right: str, values: list[str]) -> Question:
    """Three to five answers, mostly four, with letters or, as in some real rows, numbers."""
    n = rng.choices((3, 4, 5), (1, 8, 1))[0]
    answers, place = _shuffled(rng, right, _others(rng, values, right, n - 1))
    letters = list(rng.choices(("ABCDE", "12345"), (9, 1))[0][:n])
    row = {
        "id": f"pocket_{rng.randrange(10**6)}",
        **stem,
        "choices": {"text": answers, "label": letters},
        "answerKey": letters[place],
    }
    return (*stem.values(), *sorted(answers)), row


def arc_easy(rng: random.Random) -> Question:
    """One known fact about a thing."""
    thing, column, value = _fact(rng, (MATERIAL, PLACE))
    stem = {"question": _CLAIMS[column][2].format(thing=with_article(thing))}
    return _lettered(rng, stem, value, _column(column))


def arc_challenge(rng: random.Random) -> Question:
    """What follows for a thing from what it is made of."""
    thing = rng.choice([name for name, fact in FACTS.items() if fact[MATERIAL] in MATERIALS])
    like, happens = MATERIALS[FACTS[thing][MATERIAL]]
    which = rng.randrange(2)
    stem = {"question": (f"What is a {thing} like?", f"What happens to a {thing}?")[which]}
    right, values = (like, happens)[which], [material[which] for material in MATERIALS.values()]
    return _lettered(rng, stem, right, values)


def openbookqa(rng: random.Random) -> Question:
    """The end of a sentence about a thing."""
    thing, column, value = _fact(rng, (KIND, USE))
    start = {KIND: "is", USE: "can"}[column]
    return _lettered(rng, {"question_stem": f"{capitalised(with_article(thing))} {start}"}, value, _column(column))


SETS: dict[str, Callable[[random.Random], Question]] = {
    "boolq": boolq,
    "piqa": piqa,
    "siqa": siqa,
    "hellaswag": hellaswag,
    "winogrande": winogrande,
    "arc_easy": arc_easy,
    "arc_challenge": arc_challenge,
    "openbookqa": openbookqa,
}
