r"""Generated problems in MATH's columns, with answers in `\boxed{}`: the pocket stand-in for the real rows.

Answers are whole numbers of both signs, fractions in lowest terms and expressions. A problem is a template filled with
numbers; its solution is the calculations and the boxed answer.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

from pocket.datasets.problems import LARGEST, calculate, problems
from pocket.datasets.splits import checksum

VERSION = 1
SIZES = {"train": 1200, "validation": 500, "test": 1000}


@dataclass(frozen=True)
class Template:
    """One kind of problem; `<a>` stands for the number a in its texts.

    Attributes:
        ranges: smallest and largest value of each given number.
        steps: (name of the result, expression as `calculate` reads it); the problem may ask for a given number and
            give a result.
        answer: what is boxed.
        fits: whether all numbers together make a problem.
        smallest: no calculated number is smaller.
    """

    name: str
    subject: str
    level: int
    problem: str
    ranges: dict[str, tuple[int, int]]
    steps: tuple[tuple[str, str], ...]
    answer: str
    fits: Callable[[dict[str, int]], bool] = lambda numbers: True
    smallest: int = 1


def _lowest(numerator: str, denominator: str) -> Callable[[dict[str, int]], bool]:
    """The fraction of two named numbers is in lowest terms and not whole."""
    return lambda numbers: gcd(numbers[numerator], numbers[denominator]) == 1 and numbers[denominator] > 1


TEMPLATES = (
    Template(
        "value", "Algebra", 1,
        "If $x = <a>$, what is the value of $<b>x + <c>$?",
        {"a": (2, 12), "b": (2, 12), "c": (1, 40)},
        (("d", "b*a"), ("e", "d+c")), "<e>",
    ),
    Template(
        "like_terms", "Algebra", 2,
        "Simplify $<a>x + <b>y + <c>x$.",
        {"a": (2, 60), "b": (2, 60), "c": (2, 60)},
        (("d", "a+c"),), "<d>x + <b>y",
    ),
    Template(
        "linear", "Algebra", 4,
        "Solve the equation $<a>x + <b> = <c>$ for $x$.",
        {"a": (2, 9), "b": (1, 60), "c": (1, 60)},
        (("d", "c-b"), ("e", "d/a")), "<e>", smallest=-LARGEST,
    ),
    Template(
        "fraction_sum", "Prealgebra", 2,
        r"Calculate $\frac{<a>}{<n>} + \frac{<b>}{<n>}$ in lowest terms.",
        {"a": (1, 50), "b": (1, 50), "n": (3, 50)},
        (("c", "a+b"),), r"\frac{<c>}{<n>}", fits=_lowest("c", "n"),
    ),
    Template(
        "fraction_product", "Prealgebra", 3,
        r"Calculate $<a> \cdot \frac{<b>}{<n>}$ in lowest terms.",
        {"a": (2, 12), "b": (2, 40), "n": (3, 50)},
        (("c", "a*b"),), r"\frac{<c>}{<n>}", fits=_lowest("c", "n"),
    ),
    Template(
        "expand", "Intermediate Algebra", 3,
        "Write $<a>(x + <b>) + <c>$ without brackets.",
        {"a": (2, 9), "b": (2, 30), "c": (2, 60)},
        (("d", "a*b"), ("e", "d+c")), "<a>x + <e>",
    ),
    Template(
        "sequence", "Intermediate Algebra", 4,
        "An arithmetic sequence begins with $<a>$ and its difference is $<b>$. What is term number $<c>$?",
        {"a": (1, 40), "b": (2, 12), "c": (3, 12)},
        (("d", "c-1"), ("e", "d*b"), ("f", "e+a")), "<f>",
    ),
    Template(
        "dividend", "Number Theory", 3,
        "Which number divided by $<a>$ gives the quotient $<b>$ and the remainder $<c>$?",
        {"a": (3, 12), "b": (2, 30), "c": (1, 11)},
        (("d", "a*b"), ("e", "d+c")), "<e>", fits=lambda numbers: numbers["c"] < numbers["a"],
    ),
    Template(
        "middle", "Number Theory", 2,
        "Which number lies in the middle between $<a>$ and $<b>$?",
        {"a": (1, 60), "b": (1, 60)},
        (("c", "a+b"), ("d", "c/2")), "<d>",
    ),
    Template(
        "probability", "Counting & Probability", 3,
        "Of the $<n>$ balls in a bag, $<a>$ are red. One is drawn. What is the probability that it is not red?",
        {"n": (3, 100), "a": (1, 99)},
        (("b", "n-a"),), r"\frac{<b>}{<n>}", fits=_lowest("b", "n"),
    ),
    Template(
        "codes", "Counting & Probability", 5,
        "A code is one of $<a>$ letters and then one of $<b>$ digits or $<c>$ signs. How many codes are there?",
        {"a": (2, 12), "b": (2, 9), "c": (2, 9)},
        (("d", "b+c"), ("e", "d*a")), "<e>",
    ),
)  # fmt: skip


def _filled(text: str, numbers: dict[str, int]) -> str:
    return re.sub("<([a-z])>", lambda name: str(numbers[name[1]]), text)


def _draw(rng: random.Random, template: Template) -> tuple[str, dict[str, str]] | None:
    given = {name: rng.randint(*bounds) for name, bounds in template.ranges.items()}
    numbers = calculate(given, template.steps, template.smallest)
    if numbers is None or not template.fits(numbers):
        return None
    return f"{template.name} {' '.join(map(str, given.values()))}", _row(template, numbers)


def _row(template: Template, numbers: dict[str, int]) -> dict[str, str]:
    worked = []
    for result, expression in template.steps:
        shown = "".join(str(numbers.get(part, part)) for part in expression)
        worked.append(f"{shown}={numbers[result]}")
    answer = _filled(template.answer, numbers)
    return {
        "problem": _filled(template.problem, numbers),
        "level": f"Level {template.level}",
        "type": template.subject,
        "solution": f"We have {', '.join(worked)}. The answer is $\\boxed{{{answer}}}$.",
    }


@lru_cache
def _problems(split: str, draw: int = 0) -> list[tuple[str, dict[str, str]]]:
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SIZES)}")
    return problems(f"pocket math {VERSION}", split, TEMPLATES, _draw, SIZES[split], draw)


def generate(split: str, draw: int = 0) -> list[dict[str, str]]:
    """The rows of "train", "validation" or "test" as {"problem", "level", "type", "solution"}.

    Another draw has other rows of the split.

    Raises ValueError for an unknown split.
    """
    return [dict(row) for _, row in _problems(split, draw)]


def keys(split: str) -> list[str]:
    """The template and given numbers of each row of a split, in row order."""
    return [key for key, _ in _problems(split)]


def fingerprint() -> str:
    """The sha256 of all rows of all splits, in their first draw."""
    return checksum(generate(split) for split in SIZES)
