"""What initialisation costs, against the training that follows. No torch here."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from eva_bench.reporting.figures.style import COLOURS, Drawing, legend, panels
from eva_bench.reporting.tables.facts import FACTS, Fact
from eva_bench.reporting.tables.selection import Selection

SHOWN = {"init_share": "initialisation, % of training time", "init_peak_share": "peak memory, % of training's"}


def draw_costs(selection: Selection) -> Drawing | None:
    """Seconds and memory of initialisation per method and family; None where all of it came from caches."""
    values = {fact: _by_method_and_family(selection, FACTS[fact]) for fact in SHOWN}
    families = sorted({family for by_family in values["init_share"].values() for family in by_family})
    if not families:
        return None
    figure, axes = panels(2, 4.2, 0.34 * len(values["init_share"]) + 1.2)
    for ax, (fact, label) in zip(axes, SHOWN.items(), strict=True):
        methods = list(reversed(values[fact]))
        height = 0.8 / len(families)
        for i, family in enumerate(families):
            shown = [100 * values[fact][method].get(family, np.nan) for method in methods]
            ax.barh(np.arange(len(methods)) + 0.4 - height * (i + 0.5), shown, height, label=family, color=COLOURS[i])
        ax.set_yticks(range(len(methods)), methods)
        ax.set_xlabel(label)
    legend(figure, axes)
    caption = (
        "What initialisation costs: seconds as a share of the training that follows, "
        "and peak memory of the process against the peak in training."
    )
    return Drawing(f"costs-{selection.scale}", figure, caption)


def _by_method_and_family(selection: Selection, fact: Fact) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = {}
    for row in selection.table.rows:
        by_family = found[row.title] = defaultdict(list)
        for run in selection.runs(row):
            if run.ranks and (value := fact(run)) is not None:
                by_family[run.family].append(value)
    return {method: {family: float(np.mean(v)) for family, v in by.items()} for method, by in found.items() if by}
