"""A table from its specification and the records: cells, best means, published numbers, notes. No torch here."""

from __future__ import annotations

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.notes import notes
from eva_bench.reporting.tables.published import Number, published_numbers
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import UNITS, Column, Mean, Row, TableSpec
from eva_bench.reporting.tables.table import MISSING, Cell, Line, Table, full_title, range_cell
from eva_bench.reporting.tables.tuning import AROUND, scores_around
from eva_bench.reporting.tables.value import Value

AROUND_TITLE = "on validation: at half / at / at twice the rate"

Values = dict[tuple[str, str], Value | None]  # (title of a row, title of a column) -> value


def build_table(table: TableSpec, archive: Archive, scale: str, model: str | None) -> Table | None:
    """The table of one scale and model, or None where no record of it exists.

    Raises:
        UserError: the table names a metric that no record has, or two records claim one cell.
    """
    selection = select(archive, table, scale, model)
    return assemble(selection, model) if selection.used else None


def assemble(selection: Selection, model: str | None) -> Table:
    """The finished table of selected records."""
    table = selection.table
    columns = table.shown_columns
    values: Values = {(row.title, c.title): selection.value(row, c) for row in table.rows for c in columns}
    blocks = {block.title: published_numbers(block) for block in table.published}
    beside = _column_of_published(columns, blocks)
    header = ["method", *(_heading(selection, column) for column in columns), "seeds", "learning rate"]
    header += [AROUND_TITLE] * table.statistics + ["parameters"]
    header += list(blocks) if beside else []
    lines = _lines_beside(selection, columns, len(header)) + _lines_of_ours(selection, columns, values, blocks, beside)
    if not beside:
        lines += _published_lines(table, columns, blocks, values, len(header))
    title = full_title(table.title, selection.scale, model)
    measured = sum(value is not None for value in values.values())
    return Table(table.name, selection.scale, model, title, header, lines, notes(selection, measured, len(values)))


def unit(table: TableSpec, column: Column | Mean) -> tuple[float, int]:
    """(factor, digits) of a column; a mean has the unit of what it averages."""
    if isinstance(column, Mean) and column.unit is None:
        column = next(part for part in table.columns if column.of == "all" or part.title in column.of)
    return UNITS[column.unit]


def _heading(selection: Selection, column: Column | Mean) -> str:
    if isinstance(column, Column):
        return column.title
    families = ", families alike" if column.balanced else ""
    return f"{column.title} ({len(selection.parts(column))} tasks{families})"


def _lines_beside(selection: Selection, columns: list[Column | Mean], width: int) -> list[Line]:
    """Scores that do not depend on the method: the untrained model's, and the reference's where a table has one."""
    table = selection.table
    finders = {"untrained": selection.untrained}
    if table.reference:
        finders[table.reference] = selection.reference
    lines = []
    for title, find in finders.items():
        cells = [_cell(find(column), unit(table, column)) for column in columns]
        lines.append(Line(title, cells + [Cell() for _ in range(width - 1 - len(cells))], "untrained"))
    return lines


def _lines_of_ours(
    selection: Selection, columns: list[Column | Mean], values: Values, blocks: dict, beside: Column | Mean | None
) -> list[Line]:
    table = selection.table
    most = max((value.n for value in values.values() if value), default=0)
    lines = []
    for row in table.rows:
        cells = [_cell(values[row.title, column.title], unit(table, column), most) for column in columns]
        cells += _facts(selection, row)
        if beside:
            ours = values[row.title, beside.title]
            key = row.title, beside.name_in_papers
            cells += [_published_cell(numbers.get(key), beside, ours, table) for numbers in blocks.values()]
        lines.append(Line(row.title, cells))
    _mark_best(selection, columns, values, lines)
    return lines


def _cell(value: Value | None, shown: tuple[float, int], most: int = 0) -> Cell:
    """`87.1 ± 9.5`, with what is missing in brackets: fewer seeds than others, or tasks that an average lacks."""
    if value is None:
        return Cell()
    factor, digits = shown
    text = f"{value.mean * factor:.{digits}f}"
    if value.std is not None:
        text += f" ± {value.std * factor:.{digits}f}"
    if value.n < most:
        text += f" (n={value.n})"
    if not value.complete:
        text += " ({} of {})".format(*value.tasks)
    return Cell(text, value.mean)


def _facts(selection: Selection, row: Row) -> list[Cell]:
    """Seeds, learning rates and trained parameters."""
    runs = selection.runs(row)
    seeds = {selection.seeds(row, task) for task in selection.table.tasks} - {0}
    return [
        range_cell(seeds or {0}),
        range_cell({float(run.lr) for run in runs if run.lr is not None}),
        *([_around(selection, row)] if selection.table.statistics else []),
        range_cell({run.trainable_parameters for run in runs if run.trainable_parameters}),
    ]


def _around(selection: Selection, row: Row) -> Cell:
    """`61.2 / 64.0 / 60.8`: whether a slightly other rate would have done as well."""
    scores = scores_around(selection, row)
    if not any(score is not None for score in scores):
        return Cell()
    shown = " / ".join(MISSING if score is None else f"{100 * score:.1f}" for score in scores)
    return Cell(shown, scores[AROUND.index(1)])


def _mark_best(selection: Selection, columns: list[Column | Mean], values: Values, lines: list[Line]) -> None:
    """Bold for the best mean of a column. Averages that lack tasks take no part: they are means of something else."""
    for index, column in enumerate(columns):
        parts = selection.parts(column) if isinstance(column, Mean) else [column]
        sign = {"max": 1, "min": -1, "none": 0}[parts[0].best] if parts else 0
        found = [(line, value) for line in lines if (value := values[line.title, column.title]) and value.complete]
        if sign and found:
            best = max(sign * value.mean for _, value in found)
            for line, value in found:
                line.cells[index].bold = sign * value.mean == best


def _column_of_published(columns: list[Column | Mean], blocks: dict[str, dict]) -> Column | Mean | None:
    """The one column with published numbers, which stand beside ours; None where several have: those get lines."""
    names = {name for numbers in blocks.values() for _, name in numbers}
    found = [column for column in columns if column.name_in_papers in names]
    return found[0] if len(found) == 1 else None


def _published_cell(published: Number | None, column: Column | Mean, ours: Value | None, table: TableSpec) -> Cell:
    if published is None:
        return Cell()
    factor, digits = unit(table, column)
    return Cell(published.beside(ours and ours.mean * factor, digits), published.mean)


def _published_lines(
    table: TableSpec, columns: list[Column | Mean], blocks: dict, values: Values, width: int
) -> list[Line]:
    """A line per published method, below ours; in brackets our number, if there is one, minus the published one."""
    lines = []
    for block in table.published:
        numbers = blocks[block.title]
        for ours, theirs in block.methods.items():
            cells = [
                _published_cell(numbers.get((ours, c.name_in_papers)), c, values.get((ours, c.title)), table)
                for c in columns
            ]
            empty = [Cell() for _ in range(width - 1 - len(cells))]
            lines.append(Line(f"{block.title}: {theirs}", cells + empty, "published"))
    return lines
