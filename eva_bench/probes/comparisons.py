"""Trainings compared by what probes measured on them.

Trainings are compared on the same tasks: a value of a method and seed is a mean over tasks, an interval that of
Student's t over seeds, paired where two methods are compared. Intervals of correlations and of differences at equal
score are percentiles of a bootstrap over seeds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean

import numpy as np
from scipy import stats

DRAWS = 2000


@dataclass(frozen=True)
class Training:
    """One finished run and what probes measured on it.

    Attributes:
        task, method, seed: of the run.
        values: `score` in percent, `forgetting` as the logarithm of a ratio of losses, `<probe>/<name>` of the probes.
    """

    task: str
    method: str
    seed: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval of 95 %."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"

    @property
    def sign(self) -> int:
        """1 or -1 where zero is outside, 0 where it is inside."""
        return (self.low > 0) - (self.high < 0)


def by_seed(trainings: Sequence[Training], method: str, measure: str) -> dict[int, float]:
    """Mean over tasks for each seed; seeds that lack a task which another seed of the method has are left out."""
    mine = [t for t in trainings if t.method == method and measure in t.values]
    tasks = {t.task for t in mine}
    seeds = {t.seed for t in mine}
    rows = {seed: {t.task: t.values[measure] for t in mine if t.seed == seed} for seed in seeds}
    return {seed: mean(row.values()) for seed, row in rows.items() if set(row) == tasks}


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean and Student's interval of at least two values."""
    middle = mean(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Interval(middle, middle - half, middle + half)


def difference(trainings: Sequence[Training], measure: str, ours: str, theirs: str, seeds: int) -> Interval | None:
    """Ours minus theirs over the tasks of both, paired by seed; None with fewer seeds than wanted."""
    shared = set.intersection(*({t.task for t in trainings if t.method == m} for m in (ours, theirs)))
    kept = [t for t in trainings if t.task in shared]
    one, two = (by_seed(kept, method, measure) for method in (ours, theirs))
    pairs = [one[seed] - two[seed] for seed in sorted(set(one) & set(two))]
    return over_seeds(pairs) if len(pairs) >= max(2, seeds) else None


def bootstrap(
    trainings: Sequence[Training], estimate: Callable[[Sequence[Training]], float], seeds: int
) -> Interval | None:
    """An estimate with the percentiles of resampled seeds; None with fewer seeds than wanted, or no estimate."""
    known = sorted({t.seed for t in trainings})
    if len(known) < max(2, seeds) or math.isnan(middle := estimate(trainings)):
        return None
    generator = np.random.default_rng(0)
    groups = {seed: [t for t in trainings if t.seed == seed] for seed in known}
    drawn = [
        estimate([t for seed in generator.choice(known, len(known)) for t in groups[int(seed)]]) for _ in range(DRAWS)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(middle, float(low), float(high))


def rank_correlation(trainings: Sequence[Training], x: str, y: str, *within: str) -> float:
    """Spearman's correlation over the trainings of each task, mean over the tasks where both vary.

    Args:
        within: other attributes than the task that trainings have to share.
    """
    groups: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for t in trainings:
        if {x, y} <= t.values.keys():
            groups[t.task, *(getattr(t, name) for name in within)].append((t.values[x], t.values[y]))
    columns = [list(zip(*pairs, strict=True)) for pairs in groups.values()]
    varied = [pair for pair in columns if all(len(set(column)) > 1 for column in pair)]
    return mean(float(stats.spearmanr(*pair).statistic) for pair in varied) if varied else math.nan


def at_equal_score(trainings: Sequence[Training], ours: str, theirs: str) -> float:
    """Forgetting of ours minus theirs where both score the same: least squares, a level and a slope for each task."""
    rows = [t for t in trainings if t.method in (ours, theirs) and "forgetting" in t.values]
    tasks = sorted({t.task for t in rows})
    if {t.method for t in rows} != {ours, theirs}:
        return math.nan
    design = [
        [float(t.method == ours)]
        + [float(t.task == task) for task in tasks]
        + [t.values["score"] * (t.task == task) for task in tasks]
        for t in rows
    ]
    return float(np.linalg.lstsq(np.array(design), np.array([t.values["forgetting"] for t in rows]), rcond=None)[0][0])
