"""Templates filled with numbers, each problem in exactly one split: shared by the generators. No torch here."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from pocket.datasets.splits import bucket, stream

T = TypeVar("T")

LARGEST = 120  # no number of a calculation is larger: what the pocket model can calculate

TRIES = 100_000  # draws for one problem; a template that gives none then has too few problems

# Of 20 hash buckets, which belong to which split: no split can hold a problem of another one.
_BUCKETS = {"validation": range(0, 2), "test": range(2, 6), "train": range(6, 20)}


def calculate(numbers: dict[str, int], steps: Sequence[tuple[str, str]], smallest: int = 1) -> dict[str, int] | None:
    """All values of a problem, or None where one is not a whole number from `smallest` to LARGEST.

    Args:
        numbers: the given values by name.
        steps: (name of the result, expression), in order. An expression has three characters: two names of one letter
            or digits, and an operator between them.
        smallest: no calculated value is smaller.
    """
    values = dict(numbers)
    for result, (left, operator, right) in steps:
        x, y = (int(name) if name.isdigit() else values[name] for name in (left, right))
        if operator == "/" and (y == 0 or x % y):
            return None
        values[result] = {"+": x + y, "-": x - y, "*": x * y, "/": x // max(y, 1)}[operator]
        if not smallest <= values[result] <= LARGEST:
            return None
    return values


def problems(
    source: str,
    split: str,
    templates: Sequence[T],
    make: Callable[[random.Random, T], tuple[str, Any] | None],
    n: int,
    draw: int = 0,
) -> list[tuple[str, Any]]:
    """The first n (key, row) of a split, each key once, from a separate random stream for every split.

    Args:
        source: name and version of the generator.
        split: "train", "validation" or "test".
        templates: kinds of problems, drawn evenly.
        make: one problem of a template as (key, row), or None for numbers that give none. A hash of the key
            decides the split.
        n: number of problems.
        draw: other draws of a split are other problems of it.

    Raises:
        RuntimeError: a template has too few problems.
    """
    return list(islice(_stream(source, split, templates, make, draw), n))


def _stream(source: str, split: str, templates: Sequence[T], make: Callable, draw: int) -> Iterator[tuple[str, Any]]:
    rng = random.Random(stream(f"{source} {split}", draw))
    seen: set[str] = set()
    while True:
        template = rng.choice(templates)
        drawn = (make(rng, template) for _ in range(TRIES))
        new = (found for found in drawn if found and found[0] not in seen and bucket(found[0]) in _BUCKETS[split])
        found = next(new, None)
        if found is None:
            raise RuntimeError(f"{source}: too few problems for the {split} rows: {template}")
        seen.add(found[0])
        yield found
