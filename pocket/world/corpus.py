"""The text that the pocket language model is pretrained on, generated document by document.

Two thirds are about numbers: calculations, lists to look up, and stories whose numbers are carried into equations and
running totals. The rest is plain knowledge of small worlds, as statements, questions and choices. The pocket tasks
use other wordings, lengths and answer formats: that difference is what an adapter has to learn.
"""

import hashlib
import random
from collections.abc import Callable, Iterator

from pocket.world.number_text import algebra, calculations, chain, lookup, story, table
from pocket.world.world_text import comparison, consequence, knowledge, quiz

VERSION = 1

Document = Callable[[random.Random], str]

# How often each kind of document is written, in percent.
MIX: dict[Document, int] = {
    story: 34,
    calculations: 12,
    chain: 8,
    lookup: 8,
    table: 8,
    algebra: 8,
    knowledge: 6,
    comparison: 5,
    consequence: 4,
    quiz: 7,
}


def documents(stream: str) -> Iterator[str]:
    """Yield documents without end from the named random stream ("train", "held-out", ...)."""
    rng = random.Random(f"pocket language corpus {VERSION} {stream}")
    kinds, weights = list(MIX), list(MIX.values())
    while True:
        yield rng.choices(kinds, weights)[0](rng)


def first_documents(stream: str, n: int) -> list[str]:
    """Return the first n documents of a stream."""
    source = documents(stream)
    return [next(source) for _ in range(n)]


def checksum(texts: list[str]) -> str:
    """Return the sha256 of documents joined by zero bytes."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
