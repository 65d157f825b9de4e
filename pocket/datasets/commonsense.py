"""Generated stand-ins for the eight commonsense sets, with the columns and labels of the real ones.

They are about the small worlds that the pocket models have read about.

A hash of a question and its answers, whatever their order, decides the split: no split can hold a question of another
one.
"""

import json
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

from pocket.datasets.commonsense_sets import SETS
from pocket.datasets.splits import bucket, checksum, stream

VERSION = 1
SIZES = {"train": 320, "validation": 70, "test": 1000}  # rows of one set
SMALLER = {("piqa", "test"): 200}  # nearly all that there are: 107 pairs of tools in two orders

# Of 20 hash buckets, which belong to which split.
_BUCKETS = {"validation": range(0, 3), "test": range(3, 8), "train": range(8, 20)}

Row = dict[str, Any]


def _draw(name: str, split: str, draw: int) -> Iterator[tuple[tuple[str, ...], Row]]:
    """Yield (question, row) of a set's split, each row once, from a separate random stream."""
    rng = random.Random(stream(f"pocket commonsense {VERSION} {name} {split}", draw))
    seen = set()
    while True:
        key, row = SETS[name](rng)
        text = json.dumps(row)
        if text in seen or bucket("|".join(key)) not in _BUCKETS[split]:
            continue
        seen.add(text)
        yield key, {"set": name, **row}


def size(name: str, split: str) -> int:
    """Return how many rows a split of a set has."""
    return SMALLER.get((name, split), SIZES[split])


@cache
def _rows(name: str, split: str, draw: int = 0) -> tuple[tuple[tuple[str, ...], Row], ...]:
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SIZES)}")
    rows = _draw(name, split, draw)
    return tuple(next(rows) for _ in range(size(name, split)))


def generate(split: str, subset: str | None = None, draw: int = 0) -> list[Row]:
    """Return the rows of "train", "validation" or "test" of one set, or of all eight in one fixed random order.

    Rows have the real set's columns and `set`, the set's name; another draw has other ones. Raises ValueError for an
    unknown split or set.
    """
    if subset is None:
        rows = [row for name in SETS for row in generate(split, name, draw)]
        random.Random(f"pocket commonsense {VERSION} {split}").shuffle(rows)
        return rows
    if subset not in SETS:
        raise ValueError(f"unknown set {subset!r}; there are {', '.join(SETS)}")
    return [dict(row) for _, row in _rows(subset, split, draw)]


def keys(split: str, subset: str) -> list[tuple[str, ...]]:
    """Return the texts that tell the question of each row of a set's split from others, in row order."""
    return [key for key, _ in _rows(subset, split)]


@cache
def fingerprint(subset: str | None = None) -> str:
    """Return the sha256 of all rows of one set, or of all eight, in their first draw."""
    return checksum(generate(split, subset) for split in SIZES)
