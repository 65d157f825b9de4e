"""Generated stand-ins for the eight GLUE sets: their columns, labels and metrics, sentences of this project.

`python -m pocket.datasets.glue` prints some rows of each. A hash of a row's texts decides its split, so that no split
holds a row of another one.
"""

import random
from collections.abc import Callable
from functools import lru_cache

from pocket.datasets import glue_inference, glue_pairs, glue_single
from pocket.datasets.splits import bucket, checksum, stream

VERSION = 1
SIZES = {"train": 1280, "validation": 500, "test": 2000}
# Of 20 hash buckets, which belong to which split.
_BUCKETS = {"validation": range(0, 3), "test": range(3, 6), "train": range(6, 20)}

Row = dict[str, object]
SUBSETS: dict[str, Callable[[random.Random], Row]] = {
    "cola": glue_single.cola,
    "sst2": glue_single.sst2,
    "mrpc": glue_pairs.mrpc,
    "qqp": glue_pairs.qqp,
    "stsb": glue_pairs.stsb,
    "mnli": glue_inference.mnli,
    "qnli": glue_inference.qnli,
    "rte": glue_inference.rte,
}


def _key(row: Row) -> str:
    return "|".join(value for value in row.values() if isinstance(value, str))


@lru_cache
def _rows(split: str, subset: str, draw: int) -> tuple[Row, ...]:
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SIZES)}")
    rng = random.Random(stream(f"pocket glue {VERSION} {subset} {split}", draw))
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < SIZES[split]:
        row = SUBSETS[subset](rng)
        if subset == "mnli" and split != "train":  # half of the evaluation is about things that training never names
            row = glue_inference.mismatched(rng) if len(rows) % 2 else row | {"part": "matched"}
        key = _key(row)
        if key not in seen and bucket(key) in _BUCKETS[split]:
            seen.add(key)
            rows.append(row | {"idx": len(rows)})
    return tuple(rows)


def generate(split: str, subset: str, n: int | None = None, draw: int = 0) -> list[Row]:
    """The first n rows (default: all) of "train", "validation" or "test" of one set, of any draw.

    Raises ValueError for an unknown split.
    """
    return [dict(row) for row in _rows(split, subset, draw)[:n]]


def fingerprint(subset: str) -> str:
    """The sha256 of all rows of all splits of one set, in their first draw."""
    return checksum(generate(split, subset) for split in SIZES)


if __name__ == "__main__":
    for name in SUBSETS:
        print(name, *generate("validation", name, 8), sep="\n  ")
