"""The beginning of training: loss and gradient norm by step. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from eva_bench.reporting.archive import Run
from eva_bench.reporting.figures.style import Drawing, legend, look, panels
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Column

FIRST_STEPS = 50
SHOWN = {1: "training loss", 2: "gradient norm before clipping"}  # position in a point of the curve -> label


def draw_curves(selection: Selection, family: str, columns: Sequence[Column]) -> Drawing:
    """Loss and gradient norm of the first steps of every method on a family."""
    figure, axes = panels(2, 4.2, 2.9)
    tasks = dict.fromkeys(column.task for column in columns)
    for row in selection.table.rows:
        runs = [run for task in tasks for run in selection.cells.get((row.title, task), []) if run.curve]
        if not runs:
            continue
        colour = look(row.method)["color"]
        for ax, index in zip(axes, SHOWN, strict=True):
            steps, lines = _means_by_seed(runs, index)
            middle, spread = lines.mean(0), lines.std(0, ddof=1) if len(lines) > 1 else 0
            ax.plot(steps, middle, linewidth=1.3, label=row.title, markevery=0.2, markersize=4, **look(row.method))
            ax.fill_between(steps, middle - spread, middle + spread, color=colour, alpha=0.15, linewidth=0)
    for ax, label in zip(axes, SHOWN.values(), strict=True):
        ax.set(xlabel="step", ylabel=label, title=family)
    axes[1].set_yscale("log")
    legend(figure, axes)
    caption = (
        f"The first {FIRST_STEPS} steps of training on {family}: mean over its tasks and seeds, "
        "band: standard deviation over seeds."
    )
    return Drawing(f"curves-{selection.scale}-{family}", figure, caption)


def _means_by_seed(runs: Sequence[Run], index: int) -> tuple[list[int], np.ndarray]:
    """The steps that all runs have, and the mean over tasks for each seed, of shape (seeds, steps)."""
    shared = set.intersection(*({int(point[0]) for point in run.curve if point[0] <= FIRST_STEPS} for run in runs))
    steps = sorted(shared)
    by_seed: dict[int, list] = defaultdict(list)  # seed -> one curve per task
    for run in runs:
        at = {int(point[0]): point[index] for point in run.curve}
        by_seed[run.seed].append([at[step] for step in steps])
    return steps, np.array([np.mean(curves, axis=0) for _, curves in sorted(by_seed.items())])
