"""Published numbers: rows of results/published/*.csv as cells beside ours. No torch here."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eva_bench.reporting.tables.spec import Published
from eva_bench.system.errors import UserError
from eva_bench.system.paths import ROOT

FOLDER = ROOT / "results" / "published"


@dataclass(frozen=True)
class Number:
    """A number as a paper prints it.

    Attributes:
        mean: in the unit that the table shows (percent, seconds, ...).
    """

    text: str
    mean: float

    def beside(self, ours: float | None, digits: int) -> str:
        """`59.7 ± 0.8 (+2.1)`: in brackets ours minus the published number."""
        return self.text if ours is None else f"{self.text} ({ours - self.mean:+.{digits}f})"


@cache
def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"Published numbers '{path.name}' cannot be read: {error.strerror}.") from error


def published_numbers(block: Published) -> dict[tuple[str, str], Number]:
    """(our row, name of the column) -> number.

    Raises:
        UserError: the file has no row for a method of the block.
    """
    where = {key: value if isinstance(value, list) else [value] for key, value in block.where.items()}
    path = FOLDER / f"{where['paper'][0]}.csv"
    rows = [row for row in _rows(path) if all(row.get(key) in values for key, values in where.items())]
    names = {theirs: ours for ours, theirs in block.names.items()}
    found = {}
    for ours, theirs in block.methods.items():
        for row in rows:
            if row["method"] == theirs and row["value"]:
                mean = float(row["value"]) * block.factor
                text = row["value"] if block.factor == 1 else f"{mean:g}"
                spread = f" ± {float(row['std']) * block.factor:g}" if row["std"] else ""
                found[ours, names.get(row[block.by], row[block.by])] = Number(text + spread, mean)
    if missing := set(block.methods) - {row for row, _ in found}:
        raise UserError(f"{path.name} has no row for {', '.join(sorted(missing))} of '{block.title}'.")
    return found
