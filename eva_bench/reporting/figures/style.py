"""One look for all figures: fonts, and a colour and marker per method that also differ in grey. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.figure import Figure

from eva_bench.reporting.tables.spec import read_table
from eva_bench.system.paths import CONF, choices

STYLE = {
    "svg.hashsalt": "eva-bench",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
# Paul Tol's "muted" scheme, made for all kinds of colour vision (personal.sron.nl/~pault, 2021).
COLOURS = ("#332288", "#CC6677", "#44AA99", "#882255", "#DDCC77", "#117733", "#AA4499", "#88CCEE", "#999933")
MARKERS = "os^Dv<>pP*Xhd"


@dataclass(frozen=True)
class Drawing:
    """A figure, its file name and what it shows in one or two sentences (alternative text)."""

    name: str
    figure: Figure
    caption: str


@cache
def _order() -> list[str]:
    """Methods of the table of all tasks first, so that a new method changes no colour of theirs."""
    return list(dict.fromkeys([*read_table(CONF / "table" / "overall.yaml").methods, *choices("method")]))


def look(method: str) -> dict[str, Any]:
    """Colour and marker of a method, as keywords of matplotlib's `plot`."""
    order = _order()
    place = order.index(method) if method in order else len(order)
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def panels(count: int, width: float, height: float, most: int = 3) -> tuple[Figure, list]:
    """A figure with `count` axes, at most `most` beside each other; width and height of each in inches."""
    columns = min(count, most)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, list(axes[:count])


def legend(figure: Figure, axes: list) -> None:
    """One legend below all panels, each label once."""
    found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found, loc="outside lower center", ncols=min(len(found), 5))
