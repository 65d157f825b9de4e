"""The statistics of a table: intervals, differences to LoRA, chances, collapses. No torch here."""

from __future__ import annotations

from statistics import median

from eva_bench.reporting import statistics
from eva_bench.reporting.archive import Run
from eva_bench.reporting.tables.build import Cell, Line, Table, count_range
from eva_bench.reporting.tables.notes import caveats, conditions, origin
from eva_bench.reporting.tables.selection import Selection, belongs
from eva_bench.reporting.tables.spec import Row

BASELINE = "lora"
HEADER = [
    "method",
    "tasks",
    "runs",
    "mean [95 %]",
    "IQM [95 %]",
    "median",
    "difference to LoRA [95 %]",
    "better than LoRA",
    "p (Holm)",
    "collapsed",
]
NOTES = [
    "Over all tasks and seeds, in percent. IQM: mean of the middle half of the runs. [95 %]: percentile bootstrap of "
    f"{statistics.RESAMPLES:,} resamples, seeds resampled within every task: what other "
    "seeds would give on these tasks.",
    "Difference to LoRA: mean over tasks of the paired differences on the same seed and data order. Better than LoRA: "
    "the chance that a run beats a LoRA run of the same task, ties half. p: paired t test over all pairs of task and "
    "seed, Holm's correction over the rows.",
    "Collapsed: runs that failed, or that end no better than the untouched model, unless that is perfect already; all "
    "but failed runs, which have no score, are in every mean. Methods with fewer tasks than others are not comparable "
    "in the mean.",
]


def scores_of(selection: Selection, row: Row) -> dict[str, dict[int, float]]:
    """Column's title -> seed -> score, for the columns that have any."""
    return {c.title: found for c in selection.table.score_columns if (found := selection.scores(row, c))}


def build_summary(selection: Selection, model: str | None) -> Table:
    """One line per method that has any record."""
    rows = {row.title: row for row in selection.table.rows}
    scores = {title: found for title, row in rows.items() if (found := scores_of(selection, row))}
    base = scores.get(BASELINE)
    paired = {
        title: statistics.differences(found, base) for title, found in scores.items() if base and title != BASELINE
    }
    p_values = statistics.holm({title: statistics.paired_p(found) for title, found in paired.items()})
    lines = []
    for title, found in scores.items():
        difference = paired.get(title)
        chance = statistics.probability_of_improvement(found, base) if difference else None
        runs = statistics.pooled(found)
        p = p_values.get(title)
        lines.append(
            Line(
                title,
                [
                    Cell(str(len(found)), len(found)),
                    Cell(str(len(runs)), len(runs)),
                    _with_interval(statistics.task_mean(found), statistics.mean_interval(found)),
                    _with_interval(float(statistics.interquartile_mean(runs)), statistics.iqm_interval(found)),
                    _with_interval(median(runs), None),
                    _with_interval(statistics.task_mean(difference), statistics.mean_interval(difference), "+")
                    if difference
                    else Cell(),
                    Cell(f"{chance:.2f}", chance) if chance is not None else Cell(),
                    Cell(f"{p:.3f}" if p >= 0.001 else "<0.001", p) if p is not None else Cell(),
                    count_range({collapses(selection, rows[title])}),
                ],
            )
        )
    name = f"{selection.table.name}-statistics"
    title = ", ".join(filter(None, (f"{selection.table.title}: statistics", f"scale={selection.scale}", model)))
    return Table(
        name,
        selection.scale,
        model,
        title,
        HEADER,
        lines,
        [*NOTES, origin(selection.used), conditions(selection.used), *caveats(selection)],
    )


def _with_interval(value: float, interval: tuple[float, float] | None, sign: str = "") -> Cell:
    text = f"{100 * value:{sign}.1f}"
    return Cell(text + (f" [{100 * interval[0]:{sign}.1f}, {100 * interval[1]:{sign}.1f}]" if interval else ""), value)


def collapses(selection: Selection, row: Row) -> int:
    """Runs of a row that failed, or in which nothing was learnt."""
    failed = sum(belongs(run, row) for run in selection.failed)
    return failed + sum(_collapsed(run) for run in selection.runs(row))


def _collapsed(run: Run) -> bool:
    """The task's own verdict if any, otherwise: not better than the untouched model, unless that was perfect."""
    if "collapsed" in run.metrics:
        return bool(run.metrics["collapsed"])
    before = run.metrics_before.get(run.primary)
    after = run.metrics.get(run.primary, before)
    return before is not None and (after < before or after == before < 1)
