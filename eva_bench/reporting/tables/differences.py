"""Differences to one method: per task by Dunnett's intervals, over tasks by the mixed model. No torch here."""

from __future__ import annotations

from eva_bench.reporting.statistics import Difference, Model, differences_to
from eva_bench.reporting.tables.notes import caveats, conditions, origin
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Column, Mean, Row
from eva_bench.reporting.tables.table import Cell, Line, Table, full_title, points_cell

NOTES = [
    "Score minus {baseline}'s, in points, with 95 % intervals; bold where the interval excludes 0.",
    "A task: Dunnett's intervals from the standard deviation pooled over all methods of the task; the intervals of one "
    "column hold together with 95 % chance. One training is one observation.",
    "An average: the mixed model of the statistics table. It speaks of tasks like these, where the columns of single "
    "tasks speak of other seeds only, and it weighs families alike. Without brackets: one seed, so nothing is known "
    "about the noise.",
]


def build_differences(selection: Selection, model: str | None) -> Table:
    """One line per method but the baseline, one column per score and average."""
    table = selection.table
    wanted = [c for c in table.shown_columns if isinstance(c, Mean) or c in table.score_columns]
    apart = [c for c in wanted if isinstance(c, Column) and not selection.tells(c)]
    columns = [c for c in wanted if c not in apart] + apart
    models = {c.title: Model(selection.statistics_scores(selection.parts(c))) for c in columns if isinstance(c, Mean)}
    lines = []
    for row in [row for row in table.rows if row.title != table.baseline and selection.measured(row)]:
        cells = []
        for column in columns:
            if isinstance(column, Column):
                cells.append(_task_cell(selection, row, column))
            else:
                cells.append(difference_cell(models[column.title].difference(row.title, table.baseline)))
        lines.append(Line(row.title, cells))
    title = full_title(f"{table.title}: differences to {table.baseline}", selection.scale, model)
    notes = [note.format(baseline=table.baseline) for note in NOTES]
    notes += [origin(selection.used), conditions(selection.used), *caveats(selection)]
    header = ["method", *(f"{c.title} (apart)" if c in apart else c.title for c in columns)]
    return Table(f"{table.name}-differences", selection.scale, model, title, header, lines, notes)


def difference_cell(difference: Difference | None) -> Cell:
    """A difference with its interval; empty where a method lacks a family."""
    return points_cell(difference.estimate, difference.low, difference.high) if difference else Cell()


def _task_cell(selection: Selection, row: Row, column: Column) -> Cell:
    scores = {other.title: list(selection.scores(other, column).values()) for other in selection.table.rows}
    samples = {title: values for title, values in scores.items() if values}
    found = differences_to(samples, selection.table.baseline).get(row.title)
    return points_cell(found.estimate, found.low, found.high) if found else Cell()
