"""What one variance for all methods does to the differences: the same model without some of them. No torch here."""

from __future__ import annotations

from eva_bench.reporting.statistics import Model
from eva_bench.reporting.tables.differences import difference_cell
from eva_bench.reporting.tables.notes import origin
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.summary import verdict_text
from eva_bench.reporting.tables.table import Cell, Line, Table, full_title

NOTE = (
    "The model of the statistics table takes one variance of method x task a family, for all methods. Methods of "
    "another kind, whose scores vary more from task to task, widen the intervals of all. Here the same differences "
    "once more from a model without {without}. The verdicts of this project are those of the model of all methods."
)


def build_sensitivity(selection: Selection, model: str | None) -> Table | None:
    """Differences to the baseline from the model of all methods, and without those that the table names.

    None where the table names none, or none of them has scores.
    """
    table = selection.table
    scores = selection.statistics_scores(table.score_columns)
    left_out = [name for name in table.sensitive_to if any(score.method == name for score in scores)]
    if not left_out:
        return None
    models = [Model(scores), Model([score for score in scores if score.method not in left_out])]
    lines = []
    for row in selection.compared:
        if row.title in left_out or row.title == table.baseline:
            continue
        found = [fitted.difference(row.title, table.baseline) for fitted in models]
        verdicts = [Cell(verdict_text(difference)) if difference else Cell() for difference in found]
        cells = [cell for pair in zip(map(difference_cell, found), verdicts, strict=True) for cell in pair]
        lines.append(Line(row.title, cells))
    without = " and ".join(left_out)
    header = ["method", "all methods [95 %]", "verdict", f"without {without} [95 %]", "verdict without"]
    title = full_title(f"{table.title}: differences to {table.baseline} without {without}", selection.scale, model)
    notes = [NOTE.format(without=without), origin(selection.used)]
    return Table(f"{table.name}-sensitivity", selection.scale, model, title, header, lines, notes)
