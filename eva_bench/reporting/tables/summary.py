"""The statistics of a table: one line per method, and every pair of methods. No torch here."""

from __future__ import annotations

import math
from statistics import mean

from eva_bench.reporting import statistics
from eva_bench.reporting.archive import Run
from eva_bench.reporting.statistics import Difference, Model
from eva_bench.reporting.tables.differences import difference_cell
from eva_bench.reporting.tables.notes import caveats, conditions, origin
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Row
from eva_bench.reporting.tables.table import Cell, Line, Table, full_title, range_cell

NO_BETTER = 0.95  # of a constant answer's loss: a training that ends above it has learnt nothing
MODEL_NOTE = (
    "Differences and intervals: one mixed model on the logit scale, score = task + method + method x task (random) + "
    "training (random), variances per family, REML, Satterthwaite's degrees of freedom; shown in points at the level "
    "of the tasks, mean over families. Unit: the training, however many tasks it is tested on. A failed run counts as "
    "the lowest score of its task."
)
VERDICT_NOTE = (
    "Equivalent: the interval lies within ±{margin:.0f} points. Different: it excludes 0. Undecided: neither; in "
    "brackets the number of seeds at which the same difference would be decided. Each interval holds for itself: of "
    "{pairs} equal pairs one in twenty would be called different by chance."
)
RANK_NOTE = (
    "Mean rank: over {blocks} blocks of tasks (tasks tested after one training make one block); two mean ranks differ "
    "if they are {critical:.2f} apart (Nemenyi, 95 %)."
)
LINE_NOTE = (
    "Mean: over families of the means over tasks, of methods that have all of them. Bootstrap: tasks and trainings "
    "resampled, a check that does not assume the model. Won: share of blocks with a higher mean than {baseline}, ties "
    "half. Collapsed: failed, or no better than the untouched model, unless that is perfect already."
)


def build_summary(selection: Selection, model: str | None) -> Table:
    """One line per method that has any record."""
    table = selection.table
    scores = selection.statistics_scores(table.score_columns)
    fitted = Model(scores)
    means, blocks = statistics.balanced_means(scores), statistics.block_means(scores)
    ranks = statistics.mean_ranks(blocks)
    lines = []
    for row in selection.compared:
        own = [score for score in scores if score.method == row.title]
        cells = [
            range_cell({len({score.task for score in own})}),
            range_cell({len({score.training for score in own})}),
            _number(means.get(row.title), 100, 1),
            *_against_baseline(fitted, row.title, table.baseline),
            _number(ranks.get(row.title), 1, 2),
            _number(statistics.wins(blocks, row.title, table.baseline) if row.title != table.baseline else None, 1, 2),
            range_cell({collapses(selection, row)}),
        ]
        lines.append(Line(row.title, cells))
    header = ["method", "tasks", "trainings", "mean", f"difference to {table.baseline} [95 %]", "verdict"]
    header += ["bootstrap [95 %]", "mean rank", f"won against {table.baseline}", "collapsed"]
    notes = [MODEL_NOTE, _verdict_note(fitted), _rank_note(ranks, blocks), LINE_NOTE.format(baseline=table.baseline)]
    notes += [origin(selection.used), conditions(selection.used), *caveats(selection)]
    title = full_title(f"{table.title}: statistics", selection.scale, model)
    return Table(f"{table.name}-statistics", selection.scale, model, title, header, lines, notes)


def _against_baseline(fitted: Model, method: str, baseline: str) -> list[Cell]:
    """Difference, verdict and bootstrap interval; empty for the baseline itself."""
    difference = fitted.difference(method, baseline) if method != baseline else None
    if difference is None:
        return [Cell(), Cell(), Cell()]
    interval = statistics.bootstrap_interval(fitted.scores, method, baseline)
    check = Cell(f"[{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]") if interval else Cell()
    return [difference_cell(difference), Cell(verdict_text(difference)), check]


def build_pairs(selection: Selection, model: str | None) -> Table:
    """Row minus column for every pair of methods, with the verdict and the share of blocks won."""
    table = selection.table
    scores = selection.statistics_scores(table.score_columns)
    fitted, blocks = Model(scores), statistics.block_means(scores)
    titles = [row.title for row in selection.compared]
    lines = []
    for ours in titles:
        cells = []
        for theirs in titles:
            difference = fitted.difference(ours, theirs) if ours != theirs else None
            cell = difference_cell(difference)
            if difference:
                won = statistics.wins(blocks, ours, theirs)
                cell.text += f" {difference.verdict}" + (f"; won {won:.2f}" if won is not None else "")
            cells.append(cell)
        lines.append(Line(ours, cells))
    notes = ["Row minus column, in points; won: share of blocks of tasks with the higher mean.", MODEL_NOTE]
    notes += [_verdict_note(fitted), origin(selection.used), *caveats(selection)]
    title = full_title(f"{table.title}: every pair of methods", selection.scale, model)
    return Table(f"{table.name}-pairs", selection.scale, model, title, ["method", *titles], lines, notes)


def verdict_text(difference: Difference) -> str:
    """The verdict, and for an undecided one what would decide."""
    if difference.verdict != "undecided":
        return difference.verdict
    if difference.low is None:
        return "undecided (one seed: no interval)"
    if difference.seeds is None:
        return "undecided (more seeds alone would not decide)"
    return f"undecided (about {difference.seeds:,} seeds would decide)"


def _verdict_note(fitted: Model) -> str:
    pairs = len(fitted.methods) * (len(fitted.methods) - 1) // 2
    return VERDICT_NOTE.format(margin=100 * statistics.MARGIN, pairs=pairs)


def _rank_note(ranks: dict[str, float], blocks: dict) -> str:
    if len(ranks) < 2 or len(blocks) < 2:
        return "Mean rank: of methods that have every task; with one block of tasks it has no critical difference."
    return RANK_NOTE.format(blocks=len(blocks), critical=statistics.critical_difference(len(ranks), len(blocks)))


def _number(value: float | None, factor: float, digits: int) -> Cell:
    return Cell() if value is None else Cell(f"{factor * value:.{digits}f}", value)


def collapses(selection: Selection, row: Row) -> int:
    """Runs of a row that failed, or in which nothing was learnt."""
    failed = sum(len(runs) for (title, _), runs in selection.failures.items() if title == row.title)
    return failed + sum(_collapsed(run) for run in selection.runs(row))


def _collapsed(run: Run) -> bool:
    """Whether nothing was learnt.

    Where there are labels: constant predictions, a score no better than the best constant answer's, or a final training
    loss near that answer's. Elsewhere: not better than the untouched model, unless that was perfect.
    """
    if run.metrics.get("collapsed"):
        return True
    if (majority := run.metrics.get("majority")) is not None:
        constant = run.metrics.get("constant_loss", math.inf)
        last = [point[1] for point in run.curve if point[0] > 0.9 * run.curve[-1][0]]
        return run.metrics[run.primary] <= majority or (bool(last) and mean(last) >= NO_BETTER * constant)
    before = run.metrics_before.get(run.primary)
    after = run.metrics.get(run.primary, before)
    return before is not None and (after < before or after == before < 1)
