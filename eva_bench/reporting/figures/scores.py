"""Differences to the baseline with intervals, mean ranks, and score against trained parameters. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas
from matplotlib.figure import Figure
from scikit_posthocs import critical_difference_diagram

from eva_bench.reporting import statistics
from eva_bench.reporting.figures.style import Drawing, legend, look, panels
from eva_bench.reporting.statistics import Model
from eva_bench.reporting.tables.facts import FACTS, Fact
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Column


def families_of(selection: Selection) -> dict[str, list[Column]]:
    """Family -> columns of scores that have any record."""
    by_task = {run.task: run.family for run in selection.used}
    found: dict[str, list[Column]] = defaultdict(list)
    for column in selection.table.columns:
        if column.task in by_task:
            found[by_task[column.task]].append(column)
    return dict(found)


def draw_differences(selection: Selection, families: dict[str, list[Column]]) -> Drawing | None:
    """Differences to the baseline by family, and over all families; None where the baseline has not been run."""
    model = Model(selection.statistics_scores([column for columns in families.values() for column in columns]))
    groups: dict[str, list[str] | None] = {family: [family] for family in families}
    if len(families) > 1:
        groups["all families alike"] = None
    baseline = selection.table.baseline
    rows = [row for row in reversed(selection.table.rows) if row.title != baseline and selection.measured(row)]
    if not rows or baseline not in model.methods:
        return None
    figure, axes = panels(len(groups), 3.4, 0.28 * len(rows) + 1.1)
    for ax, (title, wanted) in zip(axes, groups.items(), strict=True):
        ax.axvspan(-100 * statistics.MARGIN, 100 * statistics.MARGIN, color="#e8e8e8", linewidth=0)
        ax.axvline(0, color="#666666", linewidth=0.8)
        for y, row in enumerate(rows):
            found = model.difference(row.title, baseline, wanted)
            if found is None:
                continue
            if found.low is not None and found.high is not None:
                ends = [100 * found.low, 100 * found.high]
                ax.plot(ends, [y, y], color=look(row.method)["color"], linewidth=2)
            filled = "full" if found.verdict == "different" else "none"
            ax.plot(100 * found.estimate, y, markersize=6, fillstyle=filled, **look(row.method))
        ax.set_yticks(range(len(rows)), [row.title for row in rows])
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.set(title=title, xlabel=f"difference to {baseline}, points")
    caption = (
        f"Difference to {baseline} with its 95 % interval from the mixed model; filled: the interval excludes 0; "
        f"grey: within {100 * statistics.MARGIN:.0f} points, where methods count as equivalent."
    )
    return Drawing(f"differences-{selection.scale}", figure, caption)


def draw_ranks(selection: Selection) -> Drawing | None:
    """Critical-difference diagram of the mean ranks; None with fewer than three methods or blocks."""
    blocks = statistics.block_means(selection.statistics_scores(selection.table.score_columns))
    ranks = statistics.mean_ranks(blocks)
    if len(ranks) < 3 or len(blocks) < 3:
        return None
    critical = statistics.critical_difference(len(ranks), len(blocks))
    series = pandas.Series(ranks)
    apart = np.abs(np.subtract.outer(series.to_numpy(), series.to_numpy())) > critical
    p_values = pandas.DataFrame(np.where(apart, 0.0, 1.0), index=series.index, columns=series.index)
    methods = {row.title: row.method for row in selection.table.rows}
    figure = Figure(figsize=(6.4, 0.2 * len(ranks) + 1.4))
    colours = {title: look(methods[title])["color"] for title in ranks}
    axes = figure.subplots()
    critical_difference_diagram(series, p_values, ax=axes, color_palette=colours)
    for line in axes.lines:  # the ends of a bar come in the order of a set, which differs from process to process
        x, y = (np.asarray(values) for values in line.get_data())
        if len(set(y)) == 1:
            line.set_data(np.sort(x), y)
    caption = (
        f"Mean ranks over {len(blocks)} blocks of tasks, 1 is best. A bar joins methods less than {critical:.2f} "
        "apart, which chance explains (Nemenyi, 95 %)."
    )
    return Drawing(f"ranking-{selection.scale}", figure, caption)


# Fact -> (label, scale of the axis, name of the figure)
AGAINST = {
    "parameters": ("trained parameters", "log", "pareto"),
    "forgetting": ("forgetting (log ratio of losses)", "linear", "forgetting"),
}


def draw_pareto(selection: Selection, families: dict[str, list[Column]]) -> Iterator[Drawing]:
    """Mean score of every family against what it costs: trained parameters, and what was forgotten."""
    for fact, (label, scale, name) in AGAINST.items():
        if any(FACTS[fact](run) is not None for run in selection.used):
            figure = _pareto(selection, families, FACTS[fact], label, scale)
            caption = f"Mean score of a family against {label}; the line joins the methods that no other beats on both."
            yield Drawing(f"{name}-{selection.scale}", figure, caption)


def _pareto(
    selection: Selection, families: dict[str, list[Column]], fact: Fact, label: str, scale: Literal["log", "linear"]
) -> Figure:
    figure, axes = panels(len(families), 3.2, 2.6)
    rows = {row.title: row for row in selection.table.rows}
    for ax, (family, columns) in zip(axes, families.items(), strict=True):
        points = []
        for method, score in statistics.balanced_means(selection.statistics_scores(columns)).items():
            runs = [run for column in columns for run in selection.cells.get((method, column.task), [])]
            costs = [cost for run in runs if (cost := fact(run))]
            if not costs:
                continue  # every run failed, or nothing was measured
            points.append((float(np.mean(costs)), 100 * score))
            ax.plot(*points[-1], linestyle="", label=method, **look(rows[method].method))
        front = [p for p in sorted(points, key=lambda p: (p[0], -p[1])) if not _beaten(p, points)]
        ax.step([p[0] for p in front], [p[1] for p in front], where="post", color="#bbbbbb", linewidth=1, zorder=0)
        ax.set(xscale=scale, title=family, xlabel=label, ylabel="mean score, %")
    legend(figure, axes)
    return figure


def _beaten(point: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    return any(other[0] <= point[0] and other[1] > point[1] for other in points)
