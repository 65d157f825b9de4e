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
from pocket.datasets.splits import bucket, checksum

VERSION = 1
SIZES = {"train": 320, "validation": 60, "test": 100}  # rows of one set

# Of 20 hash buckets, which belong to which split.
_BUCKETS = {"validation": range(0, 3), "test": range(3, 8), "train": range(8, 20)}

Row = dict[str, Any]


def _draw(name: str, split: str) -> Iterator[tuple[tuple[str, ...], Row]]:
    """Yield (question, row) of a set's split, each row once, from a separate random stream."""
    # a string seed does not depend on hash randomisation
    rng = random.Random(f"pocket commonsense {VERSION} {name} {split}")
    seen = set()
    while True:
        key, row = SETS[name](rng)
        text = json.dumps(row)
        if text in seen or bucket("|".join(key)) not in _BUCKETS[split]:
            continue
        seen.add(text)
        yield key, {"set": name, **row}


@cache
def _rows(name: str, split: str) -> tuple[tuple[tuple[str, ...], Row], ...]:
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SIZES)}")
    stream = _draw(name, split)
    return tuple(next(stream) for _ in range(SIZES[split]))


def generate(split: str, subset: str | None = None) -> list[Row]:
    """Return the rows of "train", "validation" or "test" of one set, or of all eight in one fixed random order.

    Rows have the real set's columns and `set`, the set's name. Raises ValueError for an unknown split or set.
    """
    if subset is None:
        rows = [row for name in SETS for row in generate(split, name)]
        random.Random(f"pocket commonsense {VERSION} {split}").shuffle(rows)
        return rows
    if subset not in SETS:
        raise ValueError(f"unknown set {subset!r}; there are {', '.join(SETS)}")
    return [dict(row) for _, row in _rows(subset, split)]


def keys(split: str, subset: str) -> list[tuple[str, ...]]:
    """Return the texts that tell the question of each row of a set's split from others, in row order."""
    return [key for key, _ in _rows(subset, split)]


@cache
def fingerprint(subset: str | None = None) -> str:
    """Return the sha256 of all rows of one set, or of all eight."""
    return checksum(generate(split, subset) for split in SIZES)
