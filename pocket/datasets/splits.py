"""What all generators share: a hash decides the split of a row, another one stands for all rows. No torch here."""

import hashlib
import json
from collections.abc import Iterable

BUCKETS = 20


def bucket(key: str) -> int:
    """Return the hash bucket, 0 to BUCKETS - 1, of a text that tells a row from others.

    A generator gives every bucket to one split.
    """
    return hashlib.sha256(key.encode()).digest()[0] % BUCKETS


def stream(name: str, draw: int) -> str:
    """Return the seed of a random stream, which does not depend on hash randomisation.

    Evaluated rows are drawn anew for every seed of a run: draw 0, 1, 2, ... of a split.
    """
    return f"{name} {draw}" if draw else name


def checksum(splits: Iterable[list[dict]]) -> str:
    """Return the sha256 of the rows of all splits, in their order."""
    return hashlib.sha256(json.dumps(list(splits)).encode()).hexdigest()
