"""From records to cells: which records count, and what a cell of a table is made of. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, stdev
from typing import Any

from eva_bench.records.record import Record
from eva_bench.reporting.tables.spec import Column, Mean, Row, TableSpec
from eva_bench.settings.spec import fingerprint
from eva_bench.system.errors import UserError, did_you_mean

# Overrides that choose a cell, or say where and how to run; any other makes a run a private experiment.
CELL_OVERRIDES = {
    "method", "task", "scale", "model", "seed", "stage", "suite", "tracking", "threads", "wait", "force", "results_dir",
    "runs_dir", "train.checkpoint_minutes", "data.workers", "record_video",
}  # fmt: skip


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
        if not values:
            return None
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values), tasks)

    @property
    def complete(self) -> bool:
        return self.tasks is None or self.tasks[0] == self.tasks[1]


class Archive:
    """All records, by scale and task.

    Raises:
        UserError: two records claim to be the same run.
    """

    def __init__(self, records: Iterable[Record]):
        self.records = list(records)
        self._places: dict[tuple[str, str], list[Record]] = defaultdict(list)
        self._settings: dict[str, str] = {}
        known = set()
        for record in self.records:
            if record.run_id in known:
                raise UserError(f"Two records claim to be the run '{record.run_id}': remove the copy from results/records.")
            known.add(record.run_id)
            self._places[record.scale, record.task].append(record)

    def places(self) -> list[tuple[str, str]]:
        """All (scale, model) of the records."""
        return sorted({(record.scale, record.spec["model"]["name"]) for record in self.records})

    def final(self, scale: str, task: str, model: str | None) -> list[Record]:
        """Records of stage=final of a task at a scale, of one model or (None) of any, whatever their status."""
        return [
            record for record in self._places.get((scale, task), [])
            if record.spec["stage"] == "final" and model in (None, record.spec["model"]["name"])
        ]  # fmt: skip

    def settings(self, record: Record) -> str:
        """Fingerprint of everything but the seed."""
        if record.run_id not in self._settings:
            self._settings[record.run_id] = fingerprint({key: value for key, value in record.spec.items() if key != "seed"})
        return self._settings[record.run_id]


@dataclass
class Selection:
    """The records of one table at one scale: per row and task, those that differ in nothing but the seed.

    Attributes:
        aside: number of finished records of the same tasks that no cell uses.
        failed: records that belong to a cell but have no score.
    """

    table: TableSpec
    scale: str
    cells: dict[tuple[str, str], list[Record]] = field(default_factory=dict)  # (row, task) -> records sorted by seed
    aside: int = 0
    failed: list[Record] = field(default_factory=list)
    _scores: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)  # asked for again and again

    @cached_property
    def used(self) -> list[Record]:
        """Every record that a cell uses, once."""
        return list({record.run_id: record for cell in self.cells.values() for record in cell}.values())

    @property
    def compares(self) -> bool:
        """Whether there are numbers; for a table of varied settings, of more than one value."""
        measured = [row for row in self.table.rows if any(self.scores(row, column) for column in self.table.columns)]
        varied = any(isinstance(values, list) for values in self.table.vary.values())
        return len({str(row.settings) for row in measured}) > varied

    def records(self, row: Row) -> list[Record]:
        return [record for task in self.table.tasks for record in self.cells.get((row.title, task), [])]

    def scores(self, row: Row, column: Column) -> dict[int, float]:
        """Seed -> value, of the records that have the metric or fact."""
        key = row.title, column.title
        if key in self._scores:
            return self._scores[key]
        found = self._scores[key] = {}
        for record in self.cells.get((row.title, column.task), []):
            value = FACTS[column.fact](record) if column.fact else record.metrics.get(self.metric(column, record))
            if value is not None:
                found[record.seed] = value
        return found

    def metric(self, column: Column, record: Record) -> str:
        return column.metric or record.spec["task"]["primary"]

    def check_names(self) -> None:
        """Raises UserError for a metric, fact or reference that nothing has."""
        prefix, used = f"{self.table.reference}_", self.used
        if self.table.reference and used and not any(name.startswith(prefix) for record in used for name in record.metrics):
            raise UserError(f"conf/table/{self.table.name}.yaml: no record has metrics of the reference '{self.table.reference}'.")
        for column in self.table.columns:
            if column.optional:
                continue
            records = [record for (_, task), cell in self.cells.items() if task == column.task for record in cell]
            known = {metric for record in records for metric in record.metrics}
            file = f"conf/table/{self.table.name}.yaml"
            if column.fact and column.fact not in FACTS:
                raise UserError(f"{file}: unknown fact '{column.fact}'.{did_you_mean(column.fact, FACTS)} Known: {', '.join(FACTS)}.")
            if records and not column.fact and self.metric(column, records[0]) not in known:
                name = self.metric(column, records[0])
                raise UserError(f"{file}: unknown metric '{name}'.{did_you_mean(name, known)}")

    def parts(self, mean_column: Mean) -> list[Column]:
        """The columns that a mean is made of."""
        return [column for column in self.table.columns if mean_column.of == "all" or column.title in mean_column.of]

    def value(self, row: Row, column: Column | Mean) -> Value | None:
        if isinstance(column, Column):
            return Value.of([score for _, score in sorted(self.scores(row, column).items())])
        covered = [scores for part in self.parts(column) if (scores := self.scores(row, part))]
        seeds = sorted(set.intersection(*map(set, covered))) if covered else []
        return Value.of([mean(scores[seed] for scores in covered) for seed in seeds], (len(covered), len(self.parts(column))))

    def untrained(self, column: Column | Mean) -> Value | None:
        """The untouched models' score: one number, or one per seed where a head is drawn at random."""
        return self._whatever_the_method(column, lambda record, metric: record.metrics_before.get(metric))

    def reference(self, column: Column | Mean) -> Value | None:
        """The score of what the table names beside the methods, an expert say, on the same rows."""
        return self._whatever_the_method(column, lambda record, metric: record.metrics.get(f"{self.table.reference}_{metric}"))

    def _whatever_the_method(self, column: Column | Mean, find: Callable[[Record, str], float | None]) -> Value | None:
        """A score that does not depend on the method, per seed, or once where no seed differs."""
        if isinstance(column, Column):
            found: dict[int, float] = {}
            for (_, task), cell in self.cells.items():
                for record in cell if task == column.task and not column.fact else []:
                    if (score := find(record, self.metric(column, record))) is not None:
                        found.setdefault(record.seed, score)
            scores = [found[seed] for seed in sorted(found)]
            return Value.of(scores[:1] if len(set(scores)) == 1 else scores)
        values = [value.mean for part in self.parts(column) if (value := self._whatever_the_method(part, find))]
        return Value(mean(values), None, 1, (len(values), len(self.parts(column)))) if values else None


def select(archive: Archive, table: TableSpec, scale: str, model: str | None) -> Selection:
    """The records of every cell. Of several settings the one finished last counts; never two protocols in one table.

    Raises:
        UserError: two records with the same settings and the same seed.
    """
    selection = Selection(table, scale)
    wanted: dict[tuple[str, str], list[Record]] = {}
    for task in table.tasks:
        records = archive.final(scale, task, model)
        selection.aside += sum(record.status == "ok" for record in records)
        for row in table.rows:
            wanted[row.title, task] = [record for record in records if belongs(record, row)]
    protocol = max((record.spec["protocol"] for cell in wanted.values() for record in cell if record.status == "ok"), default=None)
    for key, records in wanted.items():
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            if record.status == "ok" and record.spec["protocol"] == protocol:
                groups[archive.settings(record)].append(record)
        if groups:
            latest = max(groups.values(), key=lambda found: max(record.finished or "" for record in found))
            selection.cells[key] = sorted(latest, key=lambda record: record.seed)
            _refuse_doubles(selection.cells[key])
        selection.failed += [record for record in records if record.status == "failed" and record.spec["protocol"] == protocol]
    selection.aside -= len(selection.used)
    selection.check_names()
    return selection


def belongs(record: Record, row: Row) -> bool:
    """Whether a record is of the row's method and settings, and changes nothing else."""
    if record.method != row.method:
        return False
    if any(setting(record.spec, key) != value for key, value in row.settings.items()):
        return False
    return not private_overrides(record) - set(row.settings)


def private_overrides(record: Record) -> set[str]:
    """Settings of the command line beyond the cell: such a run is somebody's experiment, not part of the benchmark.

    Local files are no change where they are exactly the pinned ones (scales lite and paper).
    """
    overrides = {item.split("=")[0].lstrip("+~") for item in record.origins.get("command_line", [])} - CELL_OVERRIDES
    if record.scale != "pocket" and record.spec["identity"]["data"].get("as_pinned"):
        overrides -= {"data.root"}
    return overrides


def setting(spec: dict, dotted: str) -> Any:
    """`adapter.rank` of a specification, or None."""
    for key in dotted.split("."):
        spec = spec.get(key) if isinstance(spec, dict) else None
    return spec


def _refuse_doubles(cell: list[Record]) -> None:
    seeds = {}
    for record in cell:
        if record.seed in seeds:
            raise UserError(
                f"Two records claim one cell: '{seeds[record.seed].run_id}' and '{record.run_id}' have the same settings "
                "and seed; remove one from results/records."
            )
        seeds[record.seed] = record


def _computed(phase: str, key: str, *phases: str) -> Callable[[Record], float | None]:
    """A cost of a phase where the phases were computed, not taken from a cache; None elsewhere."""

    def fact(record: Record) -> float | None:
        if any(record.reused.get(name) or name not in record.costs for name in (phase, *phases)):
            return None
        value = record.costs[phase][key]
        return value / record.costs[phases[0]][key] if phases and record.costs[phases[0]][key] else value

    return fact


FACTS: dict[str, Callable[[Record], float | None]] = {
    "parameters": lambda record: record.trainable_parameters,
    "adapter_bytes": lambda record: record.adapter_bytes,
    "init_seconds": _computed("init", "seconds"),
    "train_seconds": _computed("train", "seconds"),
    "init_share": _computed("init", "seconds", "train"),
    "init_peak_bytes": _computed("init", "peak_bytes"),
    "init_peak_share": _computed("init", "peak_bytes", "train"),
}
