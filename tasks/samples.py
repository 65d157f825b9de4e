"""Answering the rows of an evaluation chunk by chunk, continued after an interruption. No torch here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eva_bench.records.samples import Samples


def answer_rows(
    rows: Sequence[Any],
    samples_file: Path,
    chunk: int,
    answer: Callable[[Sequence[Any], int, Callable[[int], None]], list[dict]],
    progress: Callable[[int, int], None],
) -> list[dict]:
    """Answer every row, `chunk` rows at a time.

    Args:
        samples_file: JSON lines; rows that it holds already are not answered again.
        answer: called with (rows of a chunk, index of the first, a function to call with how many rows of the
            chunk are answered already); returns one sample per row, in order.
        progress: called with (done, total) before the first chunk, within chunks and after each.

    Returns:
        One sample per row, in order.
    """
    samples = Samples(samples_file, len(rows), chunk)
    if len(samples.rows) < len(rows):
        progress(len(samples.rows), len(rows))
    while len(samples.rows) < len(rows):
        first = len(samples.rows)
        within = partial(_within, progress, first, len(rows))  # a chunk may take minutes
        samples.append(answer(rows[first : first + chunk], first, within))
        progress(len(samples.rows), len(rows))
    return samples.rows


def _within(progress: Callable[[int, int], None], first: int, total: int, answered: int) -> None:
    progress(first + answered, total)


def constant_answer(labels: Sequence[Hashable]) -> dict[str, float]:
    """What the best constant answer reaches: a run that is no better has learnt nothing.

    Args:
        labels: right answers.

    Returns:
        `majority`, the share of the most frequent label, and `constant_loss`, the cross-entropy of their frequencies.
    """
    shares = [count / len(labels) for count in Counter(labels).values()]
    return {"majority": max(shares), "constant_loss": -sum(share * math.log(share) for share in shares)}
