"""How well every task tells methods apart, beside its rows and what guessing gives: `python -m perf.reliability`.

The rule that leaves tasks out of conclusions is that of eva_bench/reporting/statistics/reliability.py, from records
alone; this page adds what only the data know.
"""

from __future__ import annotations

import importlib
from collections import Counter
from math import sqrt
from statistics import mean

from eva_bench.assets.catalogue import entry, load_rows
from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.statistics import ENOUGH
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Column, read_table
from eva_bench.system.paths import CONF, RESULTS
from perf import page
from tasks.commonsense import READERS

SCALE = "pocket"
CORRELATIONS = ("matthews", "pearson", "spearman")
NOTE = f"""
Scores are in points (100 times the metric). `reliability`: share of the variance of the methods' means that is not
noise of seeds; from {ENOUGH} a task tells methods apart. `deviation`: over seeds, pooled over methods.
`error of rows`: binomial standard error of a method's mean over its seeds, each of which has its own test rows.
`chance`: guessing among the labels that occur. `constant`: the best answer that is always the same (majority class; 0
for a correlation). `untrained`: before training. `expert`: the scripted policy in the same episodes. `mark`: why no
conclusion rests on the task; the rule is in results/tables/tasks-{SCALE}.md.
"""


def main() -> None:
    """Write results/bench/reliability.{json,md} and print the table."""
    selection = select(Archive.load(RESULTS), read_table(CONF / "table" / "overall.yaml"), SCALE, None)
    rows = [row_of(selection, column) for column in selection.table.columns if column.key in selection.judged]
    rows.sort(key=lambda row: -row["reliability"])
    enough = sum(judgement.reliability >= ENOUGH for judgement in selection.judged.values())
    page.write_rows(
        "reliability",
        f"What tasks tell apart at scale {SCALE}: {enough} of {len(rows)} with reliability of at least {ENOUGH}",
        rows,
        NOTE,
    )


def row_of(selection: Selection, column: Column) -> dict[str, str | float | int | None]:
    """The table's row of one column of scores; every score in points."""
    found = selection.judged[column.key]
    scores = [list(cell.values()) for row in selection.table.rows if (cell := selection.scores(row, column))]
    middle = mean(mean(cell) for cell in scores)
    run = next(run for run in selection.used if run.task == column.task)
    metric = column.metric or run.primary
    labels, count = _labels(run, metric)
    before, expert = selection.untrained(column), run.metrics.get(f"expert_{metric}")
    correlation = metric in CORRELATIONS
    chance, constant = (
        (0.0, 0.0) if correlation else _guesses(labels, run.metrics.get(metric.replace("accuracy", "chance")))
    )
    error = None if correlation else sqrt(middle * (1 - middle) / count / mean(len(cell) for cell in scores))
    return {
        "task": f"commonsense/{metric.split('/')[0]}" if column.task == "commonsense" else column.task,
        "reliability": round(found.reliability, 2),
        "lowest mean": _points(found.low),
        "highest mean": _points(found.high),
        "deviation": _points(found.deviation),
        "test rows": count,
        "error of rows": _points(error),
        "chance": _points(chance),
        "constant": _points(constant),
        "untrained": _points(before.mean if before else None),
        "expert": _points(expert),
        "mark": found.mark,
    }


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
