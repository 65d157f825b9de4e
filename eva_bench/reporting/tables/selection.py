"""The records of a table and their values: scores, averages, what statistics compare. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from statistics import mean

from eva_bench.reporting.archive import Run
from eva_bench.reporting.statistics import Judgement, Score
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.spec import Column, Mean, Row, TableSpec
from eva_bench.reporting.tables.value import Value
from eva_bench.system.errors import UserError, did_you_mean


@dataclass
class Selection:
    """The records of one table at one scale: per row and task, those that differ in nothing but the seed.

    Attributes:
        cells: (title of the row, task) -> runs, sorted by seed.
        failures: (title of the row, task) -> runs of the same settings that failed. They count as the lowest score
            that any run, or the untrained model, has on the task.
        aside: number of finished runs of the same tasks that no cell uses.
        judged: key of a column -> what its task tells about methods; of tasks that can be judged.
        tried: runs of the same tasks that tried learning rates.
        further: methods that the table does not name, added because they have records.
    """

    table: TableSpec
    scale: str
    cells: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    failures: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    aside: int = 0
    judged: Mapping[tuple[str, str], Judgement] = field(default_factory=dict)
    tried: list[Run] = field(default_factory=list)
    further: Collection[str] = ()
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

    @property
    def failed(self) -> list[Run]:
        """Every failed run of a cell, once."""
        return list({run.run_id: run for runs in self.failures.values() for run in runs}.values())

    def measured(self, row: Row) -> bool:
        """Whether a row has any run."""
        return any(title == row.title for title, _ in (*self.cells, *self.failures))

    def seeds(self, row: Row, task: str) -> int:
        """Number of trainings of a cell, failed ones among them."""
        return len(self.cells.get((row.title, task), [])) + len(self.failures.get((row.title, task), []))

    def runs(self, row: Row) -> list[Run]:
        """The runs of a row, task by task."""
        return [run for task in self.table.tasks for run in self.cells.get((row.title, task), [])]

    def scores(self, row: Row, column: Column) -> dict[int, float]:
        """Seed -> value, of the runs that have the metric or fact; a failed run counts as the lowest score."""
        key = row.title, column.title
        if key in self._scores:
            return self._scores[key]
        found = self._scores[key] = {}
        for run in self.cells.get((row.title, column.task), []):
            value = FACTS[column.fact](run) if column.fact else run.metrics.get(column.metric or run.primary)
            if value is not None:
                found[run.seed] = value
        failures = self.failures.get((row.title, column.task), [])
        if failures and column.is_score and (worst := self._worst(column)) is not None:
            found |= {run.seed: worst for run in failures}
        return found

    def _worst(self, column: Column) -> float | None:
        runs = [run for (_, task), cell in self.cells.items() if task == column.task for run in cell]
        both = [
            scores.get(column.metric or run.primary) for run in runs for scores in (run.metrics, run.metrics_before)
        ]
        return min((score for score in both if score is not None), default=None)

    def tells(self, column: Column) -> bool:
        """Whether conclusions may rest on the column's task."""
        return column.key not in self.judged or self.judged[column.key].mark is None

    @cached_property
    def compared(self) -> list[Row]:
        """The rows that statistics compare: those with any run; of further methods those with every score.

        A method that ran on few of the tasks would be compared on these alone, and would share in telling how much
        the others differ from task to task.
        """
        columns = [column for column in self.table.score_columns if self.tells(column)]
        known = [column for column in columns if any(self.scores(row, column) for row in self.table.rows)]
        return [
            row
            for row in self.table.rows
            if self.measured(row)
            and (row.method not in self.further or all(self.scores(row, column) for column in known))
        ]

    def statistics_scores(self, columns: Sequence[Column], *, telling: bool = True) -> list[Score]:
        """What statistics compare: one score per row, column and training; of tasks that tell methods apart."""
        found = []
        wanted = [column for column in columns if self.tells(column) or not telling]
        for row, column in product(self.compared, wanted):
            key = row.title, column.task
            runs = {run.seed: run for run in (*self.failures.get(key, []), *self.cells.get(key, []))}
            for seed, value in sorted(self.scores(row, column).items()):
                run = runs[seed]
                found.append(Score(row.title, run.family, column.title, run.train_id, value))
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
        found = [column for column in self.table.columns if mean_column.of == "all" or column.title in mean_column.of]
        return list(filter(self.tells, found)) if self.table.telling else found

    def value(self, row: Row, column: Column | Mean) -> Value | None:
        """The value of a cell. An average: mean of its tasks' means, deviation over the seeds that all tasks have."""
        if isinstance(column, Column):
            return Value.of([score for _, score in sorted(self.scores(row, column).items())])
        parts = self.parts(column)
        covered = [part for part in parts if self.scores(row, part)]
        scores = [self.scores(row, part) for part in covered]
        seeds = sorted(set.intersection(*map(set, scores))) if scores else []
        weights = self._weights(column, covered)
        found = Value.of(
            [sum(w * s[seed] for w, s in zip(weights, scores, strict=True)) for seed in seeds],
            (len(covered), len(parts)),
        )
        average = sum(w * mean(s.values()) for w, s in zip(weights, scores, strict=True))
        return replace(found, mean=average) if found else None

    def _weights(self, mean_column: Mean, covered: Sequence[Column]) -> list[float]:
        """What each column counts in an average: the same, or each family the same. They sum to 1."""
        families = self._families if mean_column.balanced else {}
        groups = Counter(families.get(column.task) for column in covered)
        return [1 / len(groups) / groups[families.get(column.task)] for column in covered]

    @cached_property
    def _families(self) -> dict[str, str]:
        """Task -> family."""
        return {run.task: run.family for run in (*self.used, *self.failed)}

    def untrained(self, column: Column | Mean) -> Value | None:
        """The untouched models' score: one number, or one per seed where a head is drawn at random."""
        return self._whatever_the_method(column, lambda run, metric: run.metrics_before.get(metric))

    def reference(self, column: Column | Mean) -> Value | None:
        """The score of what the table names beside the methods, such as an expert, on the same rows."""
        return self._whatever_the_method(column, lambda run, name: run.metrics.get(f"{self.table.reference}_{name}"))

    def bounds(self, column: Column) -> tuple[float, float]:
        """What a task gives without learning (the untouched model, a constant answer), and at best (its expert)."""
        metric = column.metric or next(run.primary for run in self.used if run.task == column.task)
        constant = metric.rpartition("/")[0] + "/majority" if "/" in metric else "majority"
        ends = {}
        for name in (constant, f"expert_{metric}"):
            found = self._whatever_the_method(column, lambda run, _, name=name: run.metrics.get(name))
            ends[name] = found.mean if found else None
        before = self.untrained(column)
        floor = max(before.mean if before else 0.0, ends[constant] or 0.0)
        return floor, ends[f"expert_{metric}"] or 1.0

    def _whatever_the_method(self, column: Column | Mean, find: Callable[[Run, str], float | None]) -> Value | None:
        """A score that does not depend on the method, per seed, or once where no seed differs."""
        if isinstance(column, Mean):
            found = {part.title: self._whatever_the_method(part, find) for part in self.parts(column)}
            covered = [part for part in self.parts(column) if found[part.title]]
            weighted = zip(self._weights(column, covered), covered, strict=True)
            value = sum(weight * found[part.title].mean for weight, part in weighted)
            return Value(value, None, 1, (len(covered), len(found))) if covered else None
        by_seed: dict[int, float] = {}
        for (_, task), cell in self.cells.items():
            for run in cell if task == column.task and not column.fact else []:
                if (score := find(run, column.metric or run.primary)) is not None:
                    by_seed.setdefault(run.seed, score)
        scores = [by_seed[seed] for seed in sorted(by_seed)]
        return Value.of(scores[:1] if len(set(scores)) == 1 else scores)
