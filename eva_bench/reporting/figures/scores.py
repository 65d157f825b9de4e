"""Scores: interquartile means with intervals, and score against trained parameters. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from eva_bench.reporting import statistics
from eva_bench.reporting.figures.style import Drawing, legend, look, panels
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


def _scores(selection: Selection, columns: Sequence[Column]) -> dict[str, dict[str, dict[int, float]]]:
    """Method -> column -> seed -> score, for methods with a score in every column."""
    found = {row.title: {c.title: selection.scores(row, c) for c in columns} for row in selection.table.rows}
    return {method: scores for method, scores in found.items() if all(scores.values())}


def draw_intervals(selection: Selection, families: dict[str, list[Column]]) -> Drawing:
    """Interquartile means of every family, and of all tasks where there are several families."""
    groups = dict(families)
    if len(families) > 1:
        groups["all tasks"] = [column for columns in families.values() for column in columns]
    figure, axes = panels(len(groups), 3.2, 2.6)
    for ax, (title, columns) in zip(axes, groups.items(), strict=True):
        scores = _scores(selection, columns)
        for y, (method, found) in enumerate(reversed(scores.items())):
            middle = 100 * float(statistics.interquartile_mean(statistics.pooled(found)))
            interval = statistics.iqm_interval(found)
            if interval:
                ax.plot([100 * end for end in interval], [y, y], color=look(method)["color"], linewidth=2)
            ax.plot(middle, y, markersize=5, **look(method))
        ax.set_yticks(range(len(scores)), list(reversed(scores)))
        ax.set_title(f"{title} ({len(columns)} score{'s' * (len(columns) > 1)})")
        ax.set_xlabel("interquartile mean, %")
    caption = (
        "Interquartile mean of all runs of a family with its 95 % bootstrap interval over seeds; "
        "methods that lack a task are left out."
    )
    return Drawing(f"intervals-{selection.scale}", figure, caption)


def draw_pareto(selection: Selection, families: dict[str, list[Column]]) -> Drawing:
    """Mean score of every family against trained parameters."""
    figure, axes = panels(len(families), 3.2, 2.6)
    rows = {row.title: row for row in selection.table.rows}
    for ax, (family, columns) in zip(axes, families.items(), strict=True):
        points = []
        for method, found in _scores(selection, columns).items():
            runs = [run for column in columns for run in selection.cells[method, column.task]]
            parameters = float(np.mean([run.trainable_parameters for run in runs if run.trainable_parameters]))
            points.append((parameters, 100 * statistics.task_mean(found)))
            ax.plot(*points[-1], linestyle="", label=method, **look(rows[method].method))
        front = [p for p in sorted(points, key=lambda p: (p[0], -p[1])) if not _beaten(p, points)]
        ax.step([p[0] for p in front], [p[1] for p in front], where="post", color="#bbbbbb", linewidth=1, zorder=0)
        ax.set(xscale="log", title=family, xlabel="trained parameters", ylabel="mean score, %")
    legend(figure, axes)
    caption = (
        "Mean score of a family against trained parameters; the line joins the methods "
        "that no other beats with as few parameters."
    )
    return Drawing(f"pareto-{selection.scale}", figure, caption)


def _beaten(point: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    return any(other[0] <= point[0] and other[1] > point[1] for other in points)
