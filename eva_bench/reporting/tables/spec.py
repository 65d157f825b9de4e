"""What a table is: the schema of conf/table/*.yaml. No torch here."""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.paths import CONF, choices

# unit -> (factor, digits)
UNITS = {
    "percent": (100, 1),
    "number": (1, 3),
    "rate": (1, 2),
    "million": (1e-6, 3),
    "seconds": (1, 1),
    "gigabytes": (1e-9, 2),
}


class Strict(BaseModel):
    """Frozen, and nothing but its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Unit = Literal["percent", "number", "rate", "million", "seconds", "gigabytes"]


class Column(Strict):
    """One column of scores (a metric of a task) or of facts about the runs (parameters, seconds, bytes).

    Without metric and fact it shows the task's primary metric. `published` is the task's name in the papers' tables.
    """

    task: str
    title: str
    metric: str | None = None
    fact: str | None = None
    unit: Unit = "percent"
    best: Literal["max", "min", "none"] = "max"
    published: str | None = None
    optional: bool = False  # a metric that only some recipes ask for: no error where no record has it

    @property
    def name_in_papers(self) -> str:
        """The title, or what the papers say instead."""
        return self.published or self.title

    @property
    def key(self) -> tuple[str, str]:
        """Task and part of it (metrics `part/...`): what the scores of a training are counted by."""
        return self.task, self.metric.rpartition("/")[0] if self.metric else ""

    @property
    def is_score(self) -> bool:
        """Whether it is a score between 0 and 1 of which more is better."""
        return self.fact is None and self.best == "max" and self.unit in ("percent", "rate")


class Mean(Strict):
    """A column that averages others, by title: over tasks per seed, then over seeds. Default unit: theirs."""

    title: str
    of: list[str] | Literal["all"] = "all"
    unit: Unit | None = None
    balanced: bool = False  # every family counts the same, however many tasks it has
    published: str | None = None

    @property
    def name_in_papers(self) -> str:
        """The title, or what the papers say instead."""
        return self.published or self.title


class Published(Strict):
    """Published numbers of one model: rows of results/published/<paper>.csv, and our rows that they belong to."""

    title: str
    where: dict[str, str | list[str]]
    methods: dict[str, str]  # our row -> the paper's method
    by: Literal["task", "metric"] = "task"  # what names a column in the file
    names: dict[str, str] = Field(default_factory=dict)  # name of a column -> its name in the file, where they differ
    factor: float = 1.0  # printed value -> the unit that the column shows


class Row(Strict):
    """A method, and the settings that a run must have for this row."""

    title: str
    method: str
    settings: dict[str, Any] = Field(default_factory=dict)


class TableSpec(Strict):
    """A table of conf/table/. `vary` names settings and their values: a row per method and combination."""

    name: str
    title: str
    methods: list[str]
    baseline: str = "lora"  # the row that statistics compare with
    stage: str = "final"  # whose runs count
    best_rate: bool = False  # of runs that differ in the learning rate, those at the rate that the selection takes
    further: bool = False  # also every other method that has records
    columns: list[Column] = Field(default_factory=list)
    columns_of: list[str] = Field(default_factory=list)  # tables whose columns of scores are taken
    means: list[Mean] = Field(default_factory=list)
    vary: dict[str, Any] = Field(default_factory=dict)
    more_rows: list[Row] = Field(default_factory=list)  # beside those of methods and vary
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)  # task -> what its runs must have, in every row
    published: list[Published] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    reference: str | None = None  # a row of scores that the records keep as <reference>_<metric>, such as an expert's
    statistics: bool = False  # further tables: differences to the baseline, statistics, every pair of methods
    sensitive_to: list[str] = Field(default_factory=list)  # methods without which differences are shown once more
    only_means: bool = False  # the averages alone are shown
    telling: bool = False  # averages leave out tasks that do not tell methods apart
    across_models: bool = False  # columns of several model kinds: one table per scale
    agreement: tuple[str, str] | None = None  # two scales: do they rank the methods alike?

    @property
    def rows(self) -> list[Row]:
        """A row per method and combination of varied settings."""
        axes = [
            [(key, value) for value in (values if isinstance(values, list) else [values])]
            for key, values in self.vary.items()
        ]
        rows = []
        for method, settings in itertools.product(self.methods, itertools.product(*axes)):
            shown = [f"{key.rpartition('.')[2]}={value}" for key, value in settings if isinstance(self.vary[key], list)]
            rows.append(Row(title=", ".join([method, *shown]), method=method, settings=dict(settings)))
        return rows + self.more_rows

    def row_of_task(self, row: Row, task: str) -> Row:
        """The row with the settings that runs of a task must have."""
        return row.model_copy(update={"settings": row.settings | self.settings.get(task, {})})

    @property
    def score_columns(self) -> list[Column]:
        """The first score of every task and part of a task (metrics `part/...`), for statistics over tasks."""
        return _scores(self.columns)

    @property
    def shown_columns(self) -> list[Column | Mean]:
        """Columns and averages, or the averages alone."""
        return [*([] if self.only_means else self.columns), *self.means]

    @property
    def tasks(self) -> list[str]:
        """The tasks of the columns, each once."""
        return list(dict.fromkeys(column.task for column in self.columns))


def read_table(path: Path) -> TableSpec:
    """The table of a YAML file, read again when the file changes. Raises UserError for anything that is not one."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read_table(path, changed)


@lru_cache(maxsize=256)
def _read_table(path: Path, _changed: int) -> TableSpec:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        table = TableSpec.model_validate({"name": path.stem} | content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"conf/table/{path.name}: {place}: {first['msg']}.{_near(first)}") from error
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"conf/table/{path.name} is not a table: {str(error).splitlines()[0]}.") from error
    for other in table.columns_of:
        taken = read_table(path.with_name(f"{other}.yaml")).columns
        known = {column.title for column in table.columns}
        table = table.model_copy(
            update={"columns": [*table.columns, *(_unique(column, known) for column in _scores(taken))]}
        )
    _check(table, path.name)
    return table


def read_tables(folder: Path = CONF / "table") -> list[TableSpec]:
    """All tables, sorted by name."""
    return [read_table(path) for path in sorted(folder.glob("*.yaml"))]


def _scores(columns: list[Column]) -> list[Column]:
    found: dict[tuple, Column] = {}
    for column in columns:
        if column.is_score:
            found.setdefault(column.key, column)
    return list(found.values())


def _unique(column: Column, known: set[str]) -> Column:
    """The column under its own title, or with the task's name where another column has that title."""
    return (
        column if column.title not in known else column.model_copy(update={"title": f"{column.title} ({column.task})"})
    )


def _check(table: TableSpec, file: str) -> None:
    titles = [column.title for column in (*table.columns, *table.means)]
    if not table.rows:
        raise UserError(f"conf/table/{file}: a table needs methods.")
    if not table.columns or len(set(titles)) < len(titles):
        raise UserError(f"conf/table/{file}: a table needs columns, each with a title of its own.")
    for mean in table.means:
        if mean.of != "all" and (unknown := set(mean.of) - set(titles)):
            near = did_you_mean(min(unknown), titles)
            raise UserError(f"conf/table/{file}: '{mean.title}' averages an unknown column '{min(unknown)}'.{near}")
    if unknown := set(table.settings) - set(table.tasks):
        near = did_you_mean(min(unknown), table.tasks)
        raise UserError(f"conf/table/{file}: settings are given for '{min(unknown)}', which no column shows.{near}")
    rows = {row.title for row in table.rows} | set(choices("method") if table.further else ())
    for block in table.published:
        if unknown := set(block.methods) - rows:
            near = did_you_mean(min(unknown), rows)
            raise UserError(f"conf/table/{file}: '{block.title}' names an unknown row '{min(unknown)}'.{near}")


def _near(error: Any) -> str:
    known = [*TableSpec.model_fields, *Column.model_fields, *Mean.model_fields, *Published.model_fields]
    return did_you_mean(str(error["loc"][-1]), known) if error["type"] == "extra_forbidden" else ""
