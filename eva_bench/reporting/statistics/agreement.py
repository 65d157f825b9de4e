"""Whether two sets of scores rank the methods alike. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from eva_bench.reporting.statistics.scores import Score

Trainings = Mapping[str, Mapping[str, Sequence[float]]]  # task -> method -> scores of trainings, in the order of seeds


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of the methods' means.

    Attributes:
        correlation: 1 where both rank alike, 0 where one says nothing about the other, -1 where the order is reversed.
        low: lower end of the 95 % interval over methods; None with fewer than four.
        high: its upper end.
        itself: per set, the mean correlation of one training of every method with the mean of its others: what noise
            of seeds leaves; None where a cell has one training.
        methods: how many are ranked.
        tasks: of how many tasks the means are.
    """

    correlation: float
    low: float | None
    high: float | None
    itself: tuple[float | None, float | None]
    methods: int
    tasks: int


def rank_agreement(ours: Sequence[Score], theirs: Sequence[Score]) -> Agreement | None:
    """How alike two sets of scores rank the methods that have all tasks of both, by the mean over these tasks.

    Args:
        ours: scores of one scale, a method's trainings in the order of seeds.
        theirs: scores of the other; tasks that only one scale has do not count.

    Returns:
        The agreement; None with fewer than three common methods, or where all means are the same.
    """
    sides = [_trainings(ours), _trainings(theirs)]
    tasks = sorted(set(sides[0]) & set(sides[1]))
    cells = [side[task] for side in sides for task in tasks]
    methods = sorted(set.intersection(*map(set, cells))) if cells else []
    if len(methods) < 3:
        return None
    correlation = _spearman(*(_means(side, tasks, methods) for side in sides))
    if math.isnan(correlation):
        return None
    low, high = spearman_interval(correlation, len(methods))
    itself = (_with_itself(sides[0], tasks, methods), _with_itself(sides[1], tasks, methods))
    return Agreement(correlation, low, high, itself, len(methods), len(tasks))


def spearman_interval(correlation: float, n: int) -> tuple[float | None, float | None]:
    """95 % interval of a rank correlation of n pairs (Bonett and Wright, Psychometrika 65, 2000); None below four."""
    if n < 4:
        return None, None
    if abs(correlation) > 1 - 1e-12:
        return correlation, correlation
    middle = math.atanh(correlation)
    half = float(stats.norm.ppf(0.975)) * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return math.tanh(middle - half), math.tanh(middle + half)


def _trainings(scores: Sequence[Score]) -> Trainings:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        found[score.task][score.method].append(score.value)
    return found


def _means(side: Trainings, tasks: Sequence[str], methods: Sequence[str]) -> list[float]:
    return [float(np.mean([np.mean(side[task][method]) for task in tasks])) for method in methods]


def _with_itself(side: Trainings, tasks: Sequence[str], methods: Sequence[str]) -> float | None:
    """The mean over trainings of the correlation between one of every method and the mean of the others."""
    count = min(len(side[task][method]) for task in tasks for method in methods)
    if count < 2:
        return None
    found = []
    for left_out in range(count):
        one = {t: {m: [side[t][m][left_out]] for m in methods} for t in tasks}
        rest = {t: {m: [v for i, v in enumerate(side[t][m]) if i != left_out] for m in methods} for t in tasks}
        found.append(_spearman(_means(one, tasks, methods), _means(rest, tasks, methods)))
    return None if any(map(math.isnan, found)) else float(np.mean(found))


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """NaN where either side has one value only."""
    if len(set(one)) == 1 or len(set(other)) == 1:
        return math.nan
    return float(stats.spearmanr(one, other).statistic)
