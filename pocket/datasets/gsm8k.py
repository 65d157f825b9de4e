"""Generated word problems in GSM8K's layout: the pocket stand-in for the real rows.

A problem is a template filled with numbers; its answer is the worked steps and a last line `#### <result>`. There are
no calculator annotations (`<<3*4=12>>`): MetaMathQA, which the real adapters are trained on, has none either.
"""

import random
from dataclasses import dataclass
from functools import lru_cache

from pocket.datasets.problems import calculate, problems
from pocket.datasets.splits import checksum
from pocket.world.words import word_list

VERSION = 3
SIZES = {"train": 1200, "validation": 500, "test": 1000}


_NAMES = word_list(
    "Anna Ben Clara Daniel Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Rosa Sam Tina Victor"
)
_THINGS = word_list(
    "apples books coins pencils shells stones stamps cards buttons marbles cookies eggs flowers balls cups plums"
)


@dataclass(frozen=True)
class Template:
    """One kind of problem: its text, the range of each given number, and its steps.

    A step is (name of the result, expression as `calculate` reads it, sentence with `{eq}` for the equation).
    """

    name: str
    question: str
    ranges: dict[str, tuple[int, int]]
    steps: tuple[tuple[str, str, str], ...]


TEMPLATES = (
    Template(
        "boxes_given_away",
        "{name} buys {a} boxes with {b} {thing} in each box. Then {name} gives {c} {thing} to {friend}. "
        "How many {thing} does {name} still have?",
        {"a": (2, 9), "b": (2, 12), "c": (1, 40)},
        (("d", "a*b", "The boxes hold {eq} {thing}."), ("e", "d-c", "{name} still has {eq} {thing}.")),
    ),
    Template(
        "two_shelves",
        "A shop puts {a} {thing} on each of {b} shelves and {c} {thing} in each of {d} drawers. "
        "How many {thing} does the shop put away?",
        {"a": (2, 9), "b": (2, 8), "c": (2, 9), "d": (2, 8)},
        (
            ("e", "a*b", "The shelves take {eq} {thing}."),
            ("f", "c*d", "The drawers take {eq} {thing}."),
            ("g", "e+f", "Together that is {eq} {thing}."),
        ),
    ),
    Template(
        "bus",
        "A bus leaves with {a} people. At the first stop {b} people get off and {c} people get on. "
        "At the second stop {d} people get off. How many people are on the bus now?",
        {"a": (10, 60), "b": (1, 30), "c": (1, 40), "d": (1, 40)},
        (
            ("e", "a-b", "After some leave there are {eq} people."),
            ("f", "e+c", "Then there are {eq} people."),
            ("g", "f-d", "At the end there are {eq} people."),
        ),
    ),
    Template(
        "readers",
        "{name} reads {a} pages a day for {b} days. {friend} reads {c} pages more than {name}. "
        "How many pages do both of them read?",
        {"a": (2, 12), "b": (2, 7), "c": (2, 40)},
        (
            ("d", "a*b", "{name} reads {eq} pages."),
            ("e", "d+c", "{friend} reads {eq} pages."),
            ("f", "d+e", "Both read {eq} pages."),
        ),
    ),
    Template(
        "shared",
        "{name} has {a} {thing} and {friend} has {b} {thing}. They put them together and share them equally "
        "among {c} friends. How many {thing} does each friend get?",
        {"a": (5, 60), "b": (5, 60), "c": (2, 10)},
        (("d", "a+b", "Together they have {eq} {thing}."), ("e", "d/c", "Each friend gets {eq} {thing}.")),
    ),
    Template(
        "packed",
        "{name} fills {a} trays with {b} {thing} each. {c} {thing} break and the rest go into bags of {d}. "
        "How many bags does {name} need?",
        {"a": (2, 9), "b": (3, 12), "c": (1, 30), "d": (2, 9)},
        (
            ("e", "a*b", "{name} starts with {eq} {thing}."),
            ("f", "e-c", "Of these {eq} are good."),
            ("g", "f/d", "That needs {eq} bags."),
        ),
    ),
    Template(
        "ages",
        "{name} is {a} years old. {friend} is {b} years older than {name}, and the aunt of {friend} is {c} "
        "times as old as {friend}. How old will the aunt be in {d} years?",
        {"a": (2, 20), "b": (1, 12), "c": (2, 5), "d": (2, 20)},
        (
            ("e", "a+b", "{friend} is {eq} years old."),
            ("f", "e*c", "The aunt is {eq} years old."),
            ("g", "f+d", "Later she is {eq} years old."),
        ),
    ),
    Template(
        "wages",
        "{name} earns {a} dollars an hour and works {b} hours. {name} spends {c} dollars on {thing} "
        "and {d} dollars on lunch. How many dollars remain?",
        {"a": (3, 15), "b": (2, 9), "c": (2, 40), "d": (2, 20)},
        (
            ("e", "a*b", "{name} earns {eq} dollars."),
            ("f", "e-c", "After the {thing} {eq} dollars remain."),
            ("g", "f-d", "After lunch {eq} dollars remain."),
        ),
    ),
    Template(
        "change",
        "One pack of {thing} costs {a} dollars and one bag costs {b} dollars. {name} pays for {c} packs and {d} bags. "
        "How much more do the packs cost than the bags?",
        {"a": (3, 12), "b": (2, 9), "c": (2, 9), "d": (2, 6)},
        (
            ("e", "a*c", "The packs cost {eq} dollars."),
            ("f", "b*d", "The bags cost {eq} dollars."),
            ("g", "e-f", "The difference is {eq} dollars."),
        ),
    ),
    Template(
        "teams",
        "A school has {a} classes of {b} children. {c} children are ill and {d} children visit from another school. "
        "All children form teams of {h}. How many teams are there?",
        {"a": (2, 8), "b": (4, 14), "c": (2, 20), "d": (2, 20), "h": (2, 9)},
        (
            ("e", "a*b", "The school has {eq} children."),
            ("f", "e-c", "Without the ill ones it is {eq} children."),
            ("g", "f+d", "With the visitors it is {eq} children."),
            ("i", "g/h", "They form {eq} teams."),
        ),
    ),
)


def _draw(rng: random.Random, template: Template) -> tuple[str, dict[str, str]] | None:
    numbers = {name: rng.randint(*bounds) for name, bounds in template.ranges.items()}
    values = calculate(numbers, [step[:2] for step in template.steps])
    if values is None:
        return None
    name, friend = rng.sample(_NAMES, 2)
    row = _row(template, values, {"name": name, "friend": friend, "thing": rng.choice(_THINGS)})
    return problem_key(template, numbers), row


def _row(template: Template, values: dict[str, int], words: dict[str, str]) -> dict[str, str]:
    lines = []
    for result, (left, operator, right), sentence in template.steps:
        lines.append(sentence.format(eq=f"{values[left]}{operator}{values[right]}={values[result]}", **words))
    lines.append(f"#### {values[template.steps[-1][0]]}")
    return {"question": template.question.format(**values, **words), "answer": "\n".join(lines)}


def problem_key(template: Template, numbers: dict[str, int]) -> str:
    """Name a problem by its template and its given numbers, whatever the names and things in it are."""
    return f"{template.name} {' '.join(str(numbers[key]) for key in template.ranges)}"


@lru_cache
def _problems(split: str, draw: int = 0) -> list[tuple[str, dict[str, str]]]:
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SIZES)}")
    return problems(f"pocket gsm8k {VERSION}", split, TEMPLATES, _draw, SIZES[split], draw)


def generate(split: str, n: int | None = None, draw: int = 0) -> list[dict[str, str]]:
    """Return the first n rows (default: all) of "train", "validation" or "test" as {"question", "answer"}.

    Another draw has other rows of the split.

    Raises ValueError for an unknown split or for more rows than the split has.
    """
    found = _problems(split, draw)
    if n is not None and not 0 <= n <= len(found):
        raise ValueError(f"split {split!r} has {len(found)} rows, {n} were asked for")
    return [dict(row) for _, row in found[:n]]


def keys(split: str) -> list[str]:
    """Return the template and numbers of each row of a split, in row order."""
    return [key for key, _ in _problems(split)]


def fingerprint() -> str:
    """Return the sha256 of all rows of all splits, in their first draw."""
    return checksum(generate(split) for split in SIZES)
