"""Questions about the small worlds with marked answers, for the language model that the commonsense tasks start from.

Marks are letters, words and, in the second stage, numbers. Layout and wording differ from the tasks': which words
carry the mark and which ask for the answer is what an adapter has to learn.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from pocket.world.words import capitalised, with_article
from pocket.world.world_text import knowledge
from pocket.world.worlds import CAUSES, FACTS, MATERIALS, NAMES

VERSION = 1
MARKS = (
    tuple("ABCDE"), tuple("abcde"), ("first", "second", "third", "fourth", "fifth"),
    ("red", "blue", "green", "black", "white"), ("north", "south", "east", "west", "home"),
    ("sun", "moon", "star", "snow", "rain"),
)  # fmt: skip
NUMBERS = tuple("12345")
CLOSINGS = ("Choose:", "Right:", "So it is", "I say", "The right one is", "Best:")


@dataclass(frozen=True)
class Asked:
    """A question, the start of the sentence that answers it, its right end and wrong ones."""

    question: str
    start: str
    right: str
    wrong: list[str]


def _others(values: Iterable[object], right: str) -> list[str]:
    return sorted({str(value) for value in values} - {right})


def _thing(rng: random.Random) -> Asked:
    """What, of what, where and what for."""
    thing, column = rng.choice(list(FACTS)), rng.randrange(5)
    a, right = with_article(thing), str(FACTS[thing][min(column, 3)])
    if column == 4:  # the other way round
        same = {name for name, fact in FACTS.items() if fact[3] == right}
        wrong = sorted(with_article(name) for name in FACTS.keys() - same)
        return Asked(f"what do you need to {right}?", f"to {right} you need", a, wrong)
    question, start = (
        (f"what is {a}?", f"{a} is"),
        (f"what is {a} made of?", f"{a} is made of"),
        (f"where is {a}?", f"you see {a}"),
        (f"what can {a} do for you?", f"{a} is there to"),
    )[column]
    return Asked(question, start, right, _others([fact[column] for fact in FACTS.values()], right))


def _material(rng: random.Random) -> Asked:
    """What a material is like and what happens to it, or to a thing made of it."""
    material, which = rng.choice(list(MATERIALS)), rng.randrange(2)
    things = [with_article(name) for name, fact in FACTS.items() if fact[1] == material]
    about = rng.choice(things) if things and rng.random() < 0.6 else material
    question, start = ((f"what is {about} like?", f"{about} is"), (f"what happens to {about}?", about))[which]
    right = MATERIALS[material][which]
    return Asked(question, start, right, _others([facts[which] for facts in MATERIALS.values()], right))


def _cause(rng: random.Random) -> Asked:
    """Causes, effects, and what people do and feel."""
    case, which, name = rng.choice(CAUSES), rng.randrange(4), rng.choice(NAMES)
    cause, effect = case[:2]
    question, start = (
        (f"why does it happen that {effect}?", f"{effect} because"),
        (f"what happens when {cause}?", f"when {cause},"),
        (f"when {cause}, what does {name} do?", f"when {cause}, {name}"),
        (f"when {cause}, how is {name}?", f"when {cause}, {name} is"),
    )[which]
    return Asked(question, start, case[which], _others([other[which] for other in CAUSES], case[which]))


def asked(rng: random.Random) -> Asked:
    """Draw a question."""
    return rng.choices((_thing, _material, _cause), (5, 3, 4))[0](rng)


def _sentence(question: Asked, end: str) -> str:
    return capitalised(f"{question.start} {end}.")


def example(rng: random.Random, numbers: bool = True) -> tuple[str, str]:
    """Return a question as text up to its answer, and the answer: a mark, or yes or no.

    Args:
        rng: the random stream.
        numbers: whether marks may be numbers.
    """
    question = asked(rng)
    if rng.random() < 0.2:
        true, words = rng.random() < 0.5, rng.choice(("yes or no", "right or wrong"))
        claim = _sentence(question, question.right if true else rng.choice(question.wrong))
        return f"{_preface(rng)}{claim} {capitalised(words)}?", " " + words.split(" or ")[0 if true else 1]
    answers = _answers(rng, question, rng.choice((1, 1, 2, 3, 3)))
    marks = rng.choice(MARKS + (NUMBERS,) * 3 if numbers else MARKS)[: len(answers)]
    whole = rng.random() < 0.4
    texts = [_sentence(question, answer) for answer in answers] if whole else answers
    sign, gap = rng.choice((") ", ": ", " - ")), rng.choice(("\n", "\n", "; "))
    listed = gap.join(f"{mark}{sign}{text}" for mark, text in zip(marks, texts, strict=True))
    start = (
        "Which sentence is right?" if whole else capitalised(rng.choice((question.question, f"{question.start} ...")))
    )
    hint = rng.choice(("", f"\nSay {' or '.join(marks)}.", f"\n({'/'.join(marks)})"))
    return f"{_preface(rng)}{start}\n{listed}{hint}\n{rng.choice(CLOSINGS)}", " " + marks[answers.index(question.right)]


def simple_example(rng: random.Random) -> tuple[str, str]:
    """Return a question in one layout with two answers: what a model learns to choose by first."""
    question = asked(rng)
    answers = _answers(rng, question, 1)
    listed = "\n".join(
        f"{mark}) {_sentence(question, answer)}" for mark, answer in zip(MARKS[0], answers, strict=False)
    )
    return f"Which sentence is right?\n{listed}\n{CLOSINGS[0]}", " " + MARKS[0][answers.index(question.right)]


def _answers(rng: random.Random, question: Asked, wrong: int) -> list[str]:
    """The right answer among so many wrong ones, in random order."""
    answers = [*rng.sample(question.wrong, min(wrong, len(question.wrong))), question.right]
    rng.shuffle(answers)
    return answers


def _preface(rng: random.Random) -> str:
    """Sometimes, what comes before a question and does not help."""
    return (
        f"{knowledge(rng)}\n"
        if rng.random() < 0.2
        else rng.choice(("", "", "Question: ", "Now think. ", "Read and choose. "))
    )
