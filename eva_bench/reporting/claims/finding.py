"""What a statement comes to, and the columns of the tasks that it is about. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.tables.cells import judged_tasks
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.spec import Column, TableSpec

Verdict = Literal["confirmed", "contradicted", "undecided", "not run"]


@dataclass(frozen=True)
class Finding:
    """What the records say about one statement, or the whole claim, at one scale."""

    text: str
    verdict: Verdict
    trainings: int = 0


def by_expectation(low: float | None, high: float | None, bounds: tuple[float, float]) -> Verdict:
    """Confirmed if the interval lies within the bounds, contradicted if wholly outside of them."""
    if low is None or high is None or not math.isfinite(low + high):
        return "undecided"
    if bounds[0] <= low and high <= bounds[1]:
        return "confirmed"
    return "contradicted" if high < bounds[0] or low > bounds[1] else "undecided"


def wanted_columns(archive: Archive, table: TableSpec, scale: str, where: Any) -> list[Column]:
    """The columns of the tasks and families that a statement is about."""
    families = {run.task: run.family for run in archive.runs if run.scale == scale}
    return [
        column
        for column in table.columns
        if (not where.families or families.get(column.task) in where.families)
        and (not where.tasks or column.task in where.tasks)
    ]


def columns_of(archive: Archive, table: TableSpec, scale: str, where: Any, measure: str | None) -> list[Column]:
    """Of these the columns whose tasks tell methods apart, or (with a measure) one column of it per task."""
    judged = judged_tasks(archive, scale)
    wanted = [
        column
        for column in wanted_columns(archive, table, scale, where)
        if column.key not in judged or judged[column.key].mark is None
    ]
    if measure is None:
        return wanted
    kind = "fact" if measure in FACTS else "metric"
    tasks = dict.fromkeys(column.task for column in wanted)
    return [
        Column(task=task, title=task, best="min", unit="number", optional=True, **{kind: measure}) for task in tasks
    ]


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean and 95 % t interval; without interval for one value."""
    middle = float(np.mean(values))
    if len(values) < 2:
        return middle, None, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return middle, middle - half, middle + half


def interval_text(estimate: float, low: float | None, high: float | None, factor: float) -> str:
    """Estimate and interval times a factor; points have one digit behind the point."""
    text = f"{factor * estimate:+.3g}" if factor == 1 else f"{factor * estimate:+.1f}"
    if low is None or high is None:
        return f"{text} (one value: no interval)"
    ends = [f"{factor * end:+.3g}" if factor == 1 else f"{factor * end:+.1f}" for end in (low, high)]
    return f"{text} [{ends[0]}, {ends[1]}]"
