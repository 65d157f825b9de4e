"""A finished table: cells as text, with what they sort by. No torch here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

MISSING = "–"


@dataclass
class Cell:
    """What is shown, what it sorts by, and whether it stands out."""

    text: str = MISSING
    sort: float | None = None
    bold: bool = False


@dataclass
class Line:
    """A row of a finished table."""

    title: str
    cells: list[Cell]
    kind: str = "ours"  # ours | untrained | published


@dataclass
class Table:
    """A finished table, ready for any format."""

    name: str
    scale: str
    model: str | None
    title: str
    header: list[str]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        """Name of its files, without suffix."""
        return "-".join(filter(None, (self.name, self.scale, self.model)))


def full_title(title: str, scale: str, model: str | None) -> str:
    """`GLUE, scale=pocket, pocket_encoder`."""
    return ", ".join(filter(None, (title, f"scale={scale}", model)))


def range_cell(values: Collection[float]) -> Cell:
    """`3`, or `2 to 3`; empty where there is nothing. Whole numbers with commas, others as short as exact."""
    if not values:
        return Cell()
    low, high = min(values), max(values)
    texts = [f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (low, high)]
    return Cell(texts[0] if low == high else " to ".join(texts), low)


def points_cell(estimate: float, low: float | None, high: float | None) -> Cell:
    """`+4.2 [-1.0, +9.4]` in points, bold where the interval excludes 0; without brackets where there is none."""
    text = f"{100 * estimate:+.1f}"
    if low is None or high is None:
        return Cell(text, estimate)
    return Cell(f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]", estimate, bold=low > 0 or high < 0)
