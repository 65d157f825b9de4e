"""Learning rates from stage=tune records: what runs are judged by, how a method does over its grid. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from eva_bench.records.record import Record
from eva_bench.reporting.archive import Run
from eva_bench.reporting.statistics.rates import Cell, Curve, Interval, geometric_means
from eva_bench.system.errors import UserError

SMALLEST = 1e-9  # a loss below it is none
NEAR = 0.02  # scores this close to the best one count as the plateau
SAME = 1.01  # rates that differ by less are the same


def badness(record: Record) -> float | None:
    """What a run is judged by: the logarithm of its validation loss, or minus its success where it is control.

    The logarithm makes tasks count alike whose losses have other sizes or units. The loss on an expert's actions does
    not say what happens when the model acts.

    Returns:
        The lower the better; None of a failed run, whose learning rate is worse than any other.

    Raises:
        UserError: a finished run without the number, by its name: nothing can be chosen by it.
    """
    if record.status == "failed":
        return None
    task, control = record.spec.task, record.spec.model.kind == "decision"
    name = task.primary if control else "reference_loss"
    value = record.metrics.get(name)
    if value is None or math.isnan(value):
        raise UserError(f"The record '{record.run_id}' has no number for {name}: nothing can be chosen by it.")
    return -value if control else math.log(max(value, SMALLEST))


def curve_of(method: str, records: Iterable[Record]) -> Curve:
    """The curve of one method at one rank. Raises UserError where its rates share no task and seed."""
    values: dict[float, dict[Cell, float | None]] = defaultdict(dict)
    for record in records:
        values[record.spec.train.lr][record.task, record.spec.seed] = badness(record)
    try:
        return Curve.of(values)
    except ValueError as error:
        raise UserError(f"{method}: {error}") from error


def chosen_rate(records: Sequence[Record]) -> float | None:
    """The rate that the selection takes; None where a rate has no task and seed in common with the others."""
    try:
        return curve_of("", records).chosen
    except UserError:
        return None


@dataclass(frozen=True)
class Tuned:
    """How one method does over its grid of learning rates on the tuning tasks of a family.

    Attributes:
        curve: losses by rate.
        scores: rate -> validation score, mean over tasks and seeds; of the rates at which no run failed.
        runs: all of them.
    """

    curve: Curve
    scores: Mapping[float, float]
    runs: Sequence[Run]

    @classmethod
    def of(cls, method: str, runs: Sequence[Run]) -> Tuned | None:
        """The method's grid, or None where it has fewer than two rates in the same tasks and seeds."""
        try:
            curve = curve_of(method, runs)
        except UserError:
            return None
        values: dict[float, list[float]] = defaultdict(list)
        for run in runs:
            if run.status == "ok" and (run.task, run.seed) in curve.cells:
                values[run.lr].append(run.metrics[run.primary])
        scores = {rate: mean(found) for rate, found in values.items() if len(found) == len(curve.cells)}
        return cls(curve, scores, runs) if len(curve.rates) > 1 and scores else None

    @property
    def plateau(self) -> tuple[float, float]:
        """The rates around the best score between which the score stays within two points of it."""
        rates = [rate for rate in self.curve.rates if rate in self.scores]
        best = max(rates, key=self.scores.__getitem__)
        low = high = rates.index(best)
        while low > 0 and self.scores[rates[low - 1]] >= self.scores[best] - NEAR:
            low -= 1
        while high < len(rates) - 1 and self.scores[rates[high + 1]] >= self.scores[best] - NEAR:
            high += 1
        return rates[low], rates[high]

    def score(self, rate: float) -> float | None:
        """The score at a rate; None where it was not tried."""
        return next((self.scores[known] for known in self.scores if max(known, rate) < SAME * min(known, rate)), None)


def optima(methods: Mapping[str, Tuned]) -> dict[str, Interval]:
    """Method -> its optimum, geometric mean over tasks and seeds."""
    return geometric_means({title: list(tuned.curve.optima.values()) for title, tuned in methods.items()})


def optima_against(methods: Mapping[str, Tuned], baseline: str) -> dict[str, Interval]:
    """Method -> its optimum as a multiple of the baseline's, over the tasks and seeds that both have."""
    if baseline not in methods:
        return {}
    base = methods[baseline].curve.optima
    ratios = {
        title: [found / base[cell] for cell, found in tuned.curve.optima.items() if cell in base]
        for title, tuned in methods.items()
        if title != baseline
    }
    return geometric_means({title: found for title, found in ratios.items() if found})
