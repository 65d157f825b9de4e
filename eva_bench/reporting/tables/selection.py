"""Which records a table shows: per row and task, those that differ in nothing but the seed. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, stdev

from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.spec import Column, Mean, Row, TableSpec
from eva_bench.system.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Value:
    """Mean and sample standard deviation of a metric over seeds.

    Attributes:
        tasks: (covered, wanted) where the value is a mean over tasks.
    """

    mean: float
    std: float | None
    n: int
    tasks: tuple[int, int] | None = None

    @classmethod
    def of(cls, values: Sequence[float], tasks: tuple[int, int] | None = None) -> Value | None:
        """The value of some scores, or None where there are none."""
        if not values:
            return None
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values), tasks)

    @property
    def complete(self) -> bool:
        """Whether no task is missing."""
        return self.tasks is None or self.tasks[0] == self.tasks[1]


@dataclass
class Selection:
    """The records of one table at one scale: per row and task, those that differ in nothing but the seed.

    Attributes:
        cells: (title of the row, task) -> runs, sorted by seed.
        aside: number of finished runs of the same tasks that no cell uses.
        failed: runs that belong to a cell but have no score.
    """

    table: TableSpec
    scale: str
    cells: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    aside: int = 0
    failed: list[Run] = field(default_factory=list)
    _scores: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)  # asked for again and again

    @cached_property
    def used(self) -> list[Run]:
        """Every run that a cell uses, once."""
        return list({run.run_id: run for cell in self.cells.values() for run in cell}.values())

    @property
    def compares(self) -> bool:
        """Whether there are numbers; for a table of varied settings, of more than one value."""
        measured = [row for row in self.table.rows if any(self.scores(row, column) for column in self.table.columns)]
        varied = any(isinstance(values, list) for values in self.table.vary.values())
        return len({str(row.settings) for row in measured}) > varied

    def runs(self, row: Row) -> list[Run]:
        """The runs of a row, task by task."""
        return [run for task in self.table.tasks for run in self.cells.get((row.title, task), [])]

    def scores(self, row: Row, column: Column) -> dict[int, float]:
        """Seed -> value, of the runs that have the metric or fact."""
        key = row.title, column.title
        if key in self._scores:
            return self._scores[key]
        found = self._scores[key] = {}
        for run in self.cells.get((row.title, column.task), []):
            value = FACTS[column.fact](run) if column.fact else run.metrics.get(column.metric or run.primary)
            if value is not None:
                found[run.seed] = value
        return found

    def check_names(self) -> None:
        """Check the table's names against its runs.

        Raises:
            UserError: a metric, fact or reference that nothing has.
        """
        file = f"conf/table/{self.table.name}.yaml"
        prefix = f"{self.table.reference}_"
        measured = {name for run in self.used for name in run.metrics}
        if self.table.reference and measured and not any(name.startswith(prefix) for name in measured):
            raise UserError(f"{file}: no record has metrics of the reference '{self.table.reference}'.")
        for column in self.table.columns:
            if column.fact and column.fact not in FACTS and not column.optional:
                near = did_you_mean(column.fact, FACTS)
                raise UserError(f"{file}: unknown fact '{column.fact}'.{near} Known: {', '.join(FACTS)}.")
            runs = [run for (_, task), cell in self.cells.items() if task == column.task for run in cell]
            if column.optional or column.fact or not runs:
                continue
            known = {metric for run in runs for metric in run.metrics}
            if (name := column.metric or runs[0].primary) not in known:
                raise UserError(f"{file}: unknown metric '{name}'.{did_you_mean(name, known)}")

    def parts(self, mean_column: Mean) -> list[Column]:
        """The columns that a mean is made of."""
        return [column for column in self.table.columns if mean_column.of == "all" or column.title in mean_column.of]

    def value(self, row: Row, column: Column | Mean) -> Value | None:
        """The value of a cell; an average is taken over tasks for each seed, then over seeds."""
        if isinstance(column, Column):
            return Value.of([score for _, score in sorted(self.scores(row, column).items())])
        covered = [scores for part in self.parts(column) if (scores := self.scores(row, part))]
        seeds = sorted(set.intersection(*map(set, covered))) if covered else []
        tasks = len(covered), len(self.parts(column))
        return Value.of([mean(scores[seed] for scores in covered) for seed in seeds], tasks)

    def untrained(self, column: Column | Mean) -> Value | None:
        """The untouched models' score: one number, or one per seed where a head is drawn at random."""
        return self._whatever_the_method(column, lambda run, metric: run.metrics_before.get(metric))

    def reference(self, column: Column | Mean) -> Value | None:
        """The score of what the table names beside the methods, such as an expert, on the same rows."""
        return self._whatever_the_method(column, lambda run, name: run.metrics.get(f"{self.table.reference}_{name}"))

    def _whatever_the_method(self, column: Column | Mean, find: Callable[[Run, str], float | None]) -> Value | None:
        """A score that does not depend on the method, per seed, or once where no seed differs."""
        if isinstance(column, Mean):
            values = [value.mean for part in self.parts(column) if (value := self._whatever_the_method(part, find))]
            return Value(mean(values), None, 1, (len(values), len(self.parts(column)))) if values else None
        found: dict[int, float] = {}
        for (_, task), cell in self.cells.items():
            for run in cell if task == column.task and not column.fact else []:
                if (score := find(run, column.metric or run.primary)) is not None:
                    found.setdefault(run.seed, score)
        scores = [found[seed] for seed in sorted(found)]
        return Value.of(scores[:1] if len(set(scores)) == 1 else scores)


def select(archive: Archive, table: TableSpec, scale: str, model: str | None) -> Selection:
    """The runs of every cell. Of several settings the one finished last counts; never two protocols in one table.

    Args:
        archive: all records.
        table: what to show.
        scale: whose records.
        model: whose records, or None for those of every model.

    Returns:
        The runs by row and task.

    Raises:
        UserError: two records with the same settings and the same seed, or a name that no record has.
    """
    selection = Selection(table, scale)
    wanted: dict[tuple[str, str], list[Run]] = {}
    for task in table.tasks:
        runs = archive.final(scale, task, model)
        selection.aside += sum(run.status == "ok" for run in runs)
        for row in table.rows:
            wanted[row.title, task] = [run for run in runs if belongs(run, row)]
    finished = [run for cell in wanted.values() for run in cell if run.status == "ok"]
    protocol = max((run.protocol for run in finished), default=None)
    for key, runs in wanted.items():
        groups: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            if run.status == "ok" and run.protocol == protocol:
                groups[run.settings_key].append(run)
        if groups:
            latest = max(groups.values(), key=lambda found: max(run.finished or "" for run in found))
            selection.cells[key] = sorted(latest, key=lambda run: run.seed)
            _refuse_doubles(selection.cells[key])
        selection.failed += [run for run in runs if run.status == "failed" and run.protocol == protocol]
    selection.aside -= len(selection.used)
    selection.check_names()
    return selection


def belongs(run: Run, row: Row) -> bool:
    """Whether a run is of the row's method and settings, and changes nothing else."""
    if run.method != row.method:
        return False
    if any(run.setting(key) != value for key, value in row.settings.items()):
        return False
    return not run.private_overrides - set(row.settings)


def _refuse_doubles(cell: list[Run]) -> None:
    seeds: dict[int, Run] = {}
    for run in cell:
        if run.seed in seeds:
            raise UserError(
                f"Two records claim one cell: '{seeds[run.seed].run_id}' and '{run.run_id}' have the same settings "
                "and seed; remove one from results/records."
            )
        seeds[run.seed] = run
