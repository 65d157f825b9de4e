"""How well every task tells methods apart, from the committed records: `python -m perf.reliability`.

Reliability is the share of the variance of the methods' means that is not noise of seeds: with s^2 the variance over
seeds pooled over methods, n seeds a method and V the variance of the means, 1 - s^2 / (n V). That is 1 - 1/F of a
one-way analysis of variance.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from math import sqrt
from statistics import harmonic_mean, mean, variance

from eva_bench.assets.catalogue import entry, load_rows
from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.tables.selection import Selection, select
from eva_bench.reporting.tables.spec import Column, read_table
from eva_bench.system.paths import CONF, RESULTS
from perf import page
from tasks.commonsense import READERS

SCALE = "pocket"
ENOUGH = 0.8  # reliability from which a task may carry a conclusion
CORRELATIONS = ("matthews", "pearson", "spearman")
NEAR = 0.02  # scores this close to the ceiling or the floor count as having reached it
NOTE = f"""
Scores are in points (100 times the metric). `reliability`: share of the variance of the methods' means that is not
noise of seeds; from {ENOUGH} a task tells methods apart. `deviation`: over seeds, pooled over methods.
`error of rows`: binomial standard error of a method's mean over its seeds, each of which has its own test rows.
`chance`: guessing among the labels that occur. `constant`: the best answer that is always the same (majority class; 0
for a correlation). `untrained`: before training. `expert`: the scripted policy in the same episodes. A task whose
methods all lie within {100 * NEAR:g} points of its ceiling (the expert, or everything right) or of its floor (the best
of chance, constant and untrained) is marked.
"""


def main() -> None:
    """Write results/bench/reliability.{json,md} and print the table."""
    selection = select(Archive.load(RESULTS), read_table(CONF / "table" / "overall.yaml"), SCALE, None)
    rows = [row_of(selection, column) for column in selection.table.columns]
    rows.sort(key=lambda row: -row["reliability"])
    enough = sum(row["reliability"] >= ENOUGH for row in rows)
    page.write_rows(
        "reliability",
        f"What tasks tell apart at scale {SCALE}: {enough} of {len(rows)} with reliability of at least {ENOUGH}",
        rows,
        NOTE,
    )


def reliability(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Reliability of a task, and the standard deviation over seeds pooled over methods.

    Args:
        scores: for every method its scores, one a seed; methods of one seed say nothing of noise.

    Returns:
        (reliability from 0 to 1, 0 where no method differs from another; standard deviation).
    """
    freedom = sum(len(found) - 1 for found in scores)
    noise = sum((len(found) - 1) * variance(found) for found in scores if len(found) > 1) / freedom
    spread = variance([mean(found) for found in scores])
    share = noise / harmonic_mean([len(found) for found in scores])
    return (max(0.0, 1 - share / spread) if spread else 0.0), sqrt(noise)


def row_of(selection: Selection, column: Column) -> dict[str, str | float | int | None]:
    """The table's row of one column of scores; every score in points."""
    scores = [list(found.values()) for row in selection.table.rows if (found := selection.scores(row, column))]
    share, deviation = reliability(scores)
    means = [mean(found) for found in scores]
    run = next(run for run in selection.used if run.task == column.task)
    metric = column.metric or run.primary
    labels, count = _labels(run, metric)
    before, expert = selection.untrained(column), run.metrics.get(f"expert_{metric}")
    correlation = metric in CORRELATIONS
    chance, constant = (
        (0.0, 0.0) if correlation else _guesses(labels, run.metrics.get(metric.replace("accuracy", "chance")))
    )
    floor = max(filter(None, (chance, constant, before.mean if before else None)), default=0.0)
    error = (
        None if correlation else sqrt(mean(means) * (1 - mean(means)) / count / mean(len(found) for found in scores))
    )
    return {
        "task": f"commonsense/{metric.split('/')[0]}" if column.task == "commonsense" else column.task,
        "reliability": round(share, 2),
        "lowest mean": _points(min(means)),
        "highest mean": _points(max(means)),
        "deviation": _points(deviation),
        "test rows": count,
        "error of rows": _points(error),
        "chance": _points(chance),
        "constant": _points(constant),
        "untrained": _points(before.mean if before else None),
        "expert": _points(expert),
        "mark": _mark(means, floor, 1.0 if expert is None else expert),
    }


def _mark(means: list[float], floor: float, ceiling: float) -> str | None:
    if min(means) >= ceiling - NEAR:
        return "ceiling"
    return "floor" if max(means) <= floor + NEAR else None


def _points(score: float | None) -> float | None:
    return None if score is None else round(100 * score, 1)


def _labels(run: Run, metric: str) -> tuple[list, int]:
    """The labels of the test rows that a metric scores, empty where answers are no labels; and their number."""
    task = run.spec.task
    info = entry(task.pocket)
    if task.family == "metaworld":  # episodes, which take minutes to play
        return [], importlib.import_module(info["generator"]).SIZES["test"]
    rows = load_rows(task.pocket, info.get("test", "test"))
    if task.family == "math":
        return [], len(rows)
    if task.family == "commonsense":
        name = metric.split("/")[0]
        labels = [READERS[name].right(row) for row in rows if row["set"] == name]
    else:
        part = metric.rpartition("_")[2]
        labels = [row["label"] for row in rows if row.get("part", part) == part]
    return labels, len(labels)


def _guesses(labels: list, chance: float | None) -> tuple[float | None, float | None]:
    """What guessing (recorded, or one of the labels that occur) and what the best constant answer score."""
    if not labels:
        return None, None
    counts = Counter(labels)
    return chance or 1 / len(counts), max(counts.values()) / len(labels)


if __name__ == "__main__":
    main()
