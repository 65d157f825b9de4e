"""Whether two scales rank the methods alike: a table of rank correlations, task by task. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.statistics import Agreement, rank_agreement
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.notes import conditions, origin
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Column, TableSpec
from eva_bench.reporting.tables.table import Cell, Line, Table

NOTE = (
    "Spearman's rank correlation between the methods' means at the two scales: 1 where both rank alike, 0 where one "
    "says nothing about the other. The interval is over methods (Bonett and Wright, 2000). Tasks that tell methods "
    "little apart are in, since whether they rank alike is the question."
)
ITSELF_NOTE = (
    "With itself: the same correlation between one training of every method and the mean of its other trainings at one "
    "scale, averaged over trainings. Where it is low, noise of seeds alone keeps two scales from agreeing."
)


def build_agreement(table: TableSpec, archive: Archive) -> Table | None:
    """The agreement of the two scales that a table names, or None where one of them has no runs.

    Raises:
        UserError: as `select`.
    """
    sides = sides_of(table, archive)
    if table.agreement is None or not sides:
        return None
    columns = common_columns(table, sides)
    lines = [_line(_title(column, sides), sides, [column]) for column in columns]
    if len(columns) > 1:
        lines.append(_line(f"mean of {len(columns)} tasks", sides, columns))
    ours, theirs = table.agreement
    header = ["task", "rank correlation [95 %]", "methods", f"{ours} with itself", f"{theirs} with itself"]
    title = f"{table.title}: do scale={ours} and scale={theirs} rank the methods alike?"
    notes = [NOTE, ITSELF_NOTE]
    notes += [
        f"{scale}: {origin(s.used)} {conditions(s.used)}" for scale, s in zip(table.agreement, sides, strict=True)
    ]
    return Table(f"{table.name}-agreement", f"{ours}-{theirs}", None, title, header, lines, notes)


def sides_of(table: TableSpec, archive: Archive) -> list[Selection]:
    """The runs at the two scales whose agreement a table asks for; none where it asks for none or one has no runs.

    Raises:
        UserError: as `select`.
    """
    sides = [select(archive, table, scale, None) for scale in table.agreement or ()]
    return sides if all(side.used for side in sides) else []


def common_columns(table: TableSpec, sides: Sequence[Selection]) -> list[Column]:
    """The columns of scores that every side has measured."""
    return [column for column in table.score_columns if all(_measured(side, column) for side in sides)]


def _title(column: Column, sides: Sequence[Selection]) -> str:
    apart = [side.scale for side in sides if not side.tells(column)]
    return f"{column.title} (tells little at {' and '.join(apart)})" if apart else column.title


def _measured(selection: Selection, column: Column) -> bool:
    return any(selection.scores(row, column) for row in selection.table.rows)


def _line(title: str, sides: Sequence[Selection], columns: Sequence[Column]) -> Line:
    found = agreement_of(sides, columns)
    if found is None:
        return Line(title, [Cell() for _ in range(4)])
    cells = [correlation_cell(found), Cell(str(found.methods), found.methods), *map(_number, found.itself)]
    return Line(title, cells)


def agreement_of(sides: Sequence[Selection], columns: Sequence[Column]) -> Agreement | None:
    """How alike two sides rank the methods by some columns, also by such that tell little."""
    return rank_agreement(*(side.statistics_scores(columns, telling=False) for side in sides))


def correlation_cell(found: Agreement | None) -> Cell:
    """`0.62 [-0.11, 0.92]`, bold where the interval excludes 0."""
    if found is None:
        return Cell()
    if found.low is None or found.high is None:
        return Cell(f"{found.correlation:.2f}", found.correlation)
    text = f"{found.correlation:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return Cell(text, found.correlation, bold=found.low > 0 or found.high < 0)


def _number(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f"{value:.2f}", value)
