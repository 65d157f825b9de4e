"""Samples of an evaluation: a JSON line per row, written in whole chunks, continued where it stopped. No torch here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eva_bench.system.files import write_atomically


def answer_rows(
    rows: Sequence[Any],
    samples_file: Path,
    chunk: int,
    answer: Callable[[Sequence[Any], int], list[dict]],
    progress: Callable[[int, int], None],
) -> list[dict]:
    """Answer every row, `chunk` rows at a time.

    Args:
        rows: what is asked.
        samples_file: JSON lines; rows that it holds already are not answered again.
        chunk: rows answered and written at once.
        answer: called with (rows of a chunk, index of the first); returns one sample per row, in order.
        progress: called with (done, total) after each chunk.

    Returns:
        One sample per row, in order.
    """
    samples = complete_lines(samples_file, len(rows), chunk)
    while len(samples) < len(rows):
        first = len(samples)
        new = answer(rows[first : first + chunk], first)
        with samples_file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in new)
        samples += new
        progress(len(samples), len(rows))
    return samples


def complete_lines(samples_file: Path, n_rows: int, chunk: int) -> list[dict]:
    """Samples of an interrupted evaluation, in whole chunks, so that the rest falls into the same batches as ever.

    What stands in the file behind them is cut off.
    """
    if not samples_file.exists():
        return []
    content = samples_file.read_bytes()
    samples = []
    for line in content.split(b"\n")[:-1]:  # bytes: a file may end within a character
        try:
            samples.append(json.loads(line))
        except ValueError:
            break
    samples = samples[:n_rows]
    if len(samples) < n_rows:
        samples = samples[: len(samples) // chunk * chunk]
    kept = b"".join(line + b"\n" for line in content.split(b"\n")[: len(samples)])
    if kept != content:
        write_atomically(samples_file, kept)
    return samples
