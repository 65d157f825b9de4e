"""A table from its specification and the records: cells, marks, notes. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.statistics import tied_with_best
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.notes import notes
from eva_bench.reporting.tables.published import Number, published_numbers
from eva_bench.reporting.tables.selection import Selection, Value, select
from eva_bench.reporting.tables.spec import UNITS, Column, Mean, Row, TableSpec

MISSING = "–"


@dataclass
class Cell:
    """What is shown, what it sorts by, and how it compares: best of its column, or no significant difference to it."""

    text: str = MISSING
    sort: float | None = None
    mark: str = ""  # best | tied


@dataclass
class Line:
    """A row of a finished table."""

    title: str
    cells: list[Cell]
    kind: str = "ours"  # ours | untrained | published


@dataclass
class Table:
    """A finished table, ready for any format."""

    name: str
    scale: str
    model: str | None
    title: str
    header: list[str]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        """Name of its files, without suffix."""
        return "-".join(filter(None, (self.name, self.scale, self.model)))


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
    columns: list[Column | Mean] = [*([] if table.only_means else table.columns), *table.means]
    values = {(row.title, column.title): selection.value(row, column) for row in table.rows for column in columns}
    most = max((value.n for value in values.values() if value), default=0)
    blocks = {block.title: published_numbers(block) for block in table.published}
    beside = _column_of_published(columns, blocks)
    header = [
        "method",
        *(_heading(selection, column) for column in columns),
        "seeds",
        "parameters",
        "init s",
        "train s",
    ]
    header += list(blocks) if beside else []
    beside_methods = {"untrained": selection.untrained} | (
        {table.reference: selection.reference} if table.reference else {}
    )
    lines = []
    for title, find in beside_methods.items():
        cells = [_cell(find(column), unit(table, column)) for column in columns]
        lines.append(Line(title, cells + [Cell() for _ in header[1 + len(columns) :]], "untrained"))
    for row in table.rows:
        cells = [_cell(values[row.title, column.title], unit(table, column), most) for column in columns]
        cells += _costs(selection, row)
        if beside:
            ours = values[row.title, beside.title]
            cells += [
                _published_cell(numbers.get((row.title, beside.name_in_papers)), beside, ours, table)
                for numbers in blocks.values()
            ]
        lines.append(Line(row.title, cells))
    _mark(selection, columns, values, lines)
    if not beside:
        lines += _published_lines(table, columns, blocks, values, len(header))
    title = ", ".join(filter(None, (table.title, f"scale={selection.scale}", model)))
    measured = sum(value is not None for value in values.values())
    return Table(table.name, selection.scale, model, title, header, lines, notes(selection, measured, len(values)))


def unit(table: TableSpec, column: Column | Mean) -> tuple[float, int]:
    """(factor, digits) of a column; a mean has the unit of what it averages."""
    if isinstance(column, Mean) and column.unit is None:
        column = next(part for part in table.columns if column.of == "all" or part.title in column.of)
    return UNITS[column.unit]


def number(value: float, factor_digits: tuple[float, int]) -> str:
    """A number in the unit of its column."""
    factor, digits = factor_digits
    return f"{value * factor:.{digits}f}"


def _cell(value: Value | None, shown: tuple[float, int], most: int = 0) -> Cell:
    """`87.1 ± 9.5`, with what is missing in brackets: fewer seeds than others, or tasks that an average lacks."""
    if value is None:
        return Cell()
    text = number(value.mean, shown)
    if value.std is not None:
        text += f" ± {number(value.std, shown)}"
    if value.n < most:
        text += f" (n={value.n})"
    if not value.complete:
        text += " ({} of {})".format(*value.tasks)
    return Cell(text, value.mean)


def _heading(selection: Selection, column: Column | Mean) -> str:
    return f"{column.title} ({len(selection.parts(column))} tasks)" if isinstance(column, Mean) else column.title


def _costs(selection: Selection, row: Row) -> list[Cell]:
    """Seeds, trained parameters, and the mean seconds of initialisation and training where they were computed."""
    runs = selection.runs(row)
    seeds = {len(cell) for (title, _), cell in selection.cells.items() if title == row.title}
    cells = [
        count_range(seeds or {0}),
        count_range({run.trainable_parameters for run in runs if run.trainable_parameters}),
    ]
    for fact in ("init_seconds", "train_seconds"):
        seconds = [value for run in runs if (value := FACTS[fact](run)) is not None]
        cells.append(Cell(f"{mean(seconds):.1f}", mean(seconds)) if seconds else Cell())
    return cells


def count_range(counts: set[int]) -> Cell:
    """`3`, or `2 to 3`; empty where nothing was counted."""
    if not counts:
        return Cell()
    low, high = min(counts), max(counts)
    return Cell(f"{low:,}" if low == high else f"{low:,} to {high:,}", low)


def _mark(selection: Selection, columns: list, values: dict, lines: list[Line]) -> None:
    """Bold for the best mean of a column, underlined where a paired test finds no significant difference to it.

    Averages that lack tasks take no part: they are means of something else.
    """
    by_title = {line.title: line for line in lines if line.kind == "ours"}
    rows = {row.title: row for row in selection.table.rows}
    for index, column in enumerate(columns):
        parts = selection.parts(column) if isinstance(column, Mean) else [column]
        sign = {"max": 1, "min": -1, "none": 0}[parts[0].best]
        means = {
            title: sign * values[title, column.title].mean
            for title in rows
            if (v := values[title, column.title]) and v.complete
        }
        if not sign or not means:
            continue
        best = max(means.values())
        scores = {
            title: {part.title: found for part in parts if (found := selection.scores(rows[title], part))}
            for title in means
        }
        leaders = [title for title in means if means[title] == best]
        for title in tied_with_best(scores, leaders[0]) - set(leaders):
            by_title[title].cells[index].mark = "tied"
        for title in leaders:
            by_title[title].cells[index].mark = "best"


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


def _published_lines(table: TableSpec, columns: list, blocks: dict, values: dict, width: int) -> list[Line]:
    """A line per published method, below ours; in brackets our number of the same row minus the published one."""
    lines = []
    for block in table.published:
        numbers = blocks[block.title]
        for row in table.rows:
            if row.title not in block.methods:
                continue
            cells = [
                _published_cell(numbers.get((row.title, c.name_in_papers)), c, values[row.title, c.title], table)
                for c in columns
            ]
            lines.append(
                Line(
                    f"{block.title}: {block.methods[row.title]}",
                    cells + [Cell() for _ in range(width - 1 - len(cells))],
                    "published",
                )
            )
    return lines
