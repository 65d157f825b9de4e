"""A check of the mixed model that assumes less: tasks and trainings resampled. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from eva_bench.reporting.statistics.scores import Score

RESAMPLES = 1000

Trainings = Mapping[str, Mapping[str, float]]  # task -> training -> score


def bootstrap_interval(families: Mapping[str, Sequence[Score]], ours: str, theirs: str) -> tuple[float, float] | None:
    """95 % interval of the difference of two methods, mean over families of the mean over their common tasks.

    Tasks are resampled within families, then trainings within methods; a training that is tested on several tasks is
    drawn for all of them. One fewer is drawn than there are, which makes the variance of few draws right on average
    (Rao and Wu, JASA 83, 1988). The interval is of t type: estimate, plus and minus a t quantile of standard errors.

    Args:
        families: family -> its scores.
        ours: a method.
        theirs: another method.

    Returns:
        (low, high), the same every time; None where a method has one training of a task, or lacks a family.
    """
    generator = np.random.default_rng(0)
    middles, draws, freedom = [], [], 0
    for found in families.values():
        sides = [_trainings(found, ours), _trainings(found, theirs)]
        tasks = sorted(set(sides[0]) & set(sides[1]))
        if not tasks or any(len(side[task]) < 2 for side in sides for task in tasks):
            return None
        means = [_resampled(side, tasks, generator) for side in sides]
        picked = generator.integers(0, len(tasks), (max(1, len(tasks) - 1), RESAMPLES))
        difference = means[0] - means[1]
        draws.append(np.take_along_axis(difference, picked, axis=0).mean(axis=0))
        middles.append(np.mean([_mean(sides[0][task]) - _mean(sides[1][task]) for task in tasks]))
        freedom += sum(len(names) - 1 for side in sides for names in {tuple(sorted(side[task])) for task in tasks})
    if not middles:
        return None
    half = stats.t.ppf(0.975, freedom) * np.mean(draws, axis=0).std(ddof=1)
    return float(np.mean(middles) - half), float(np.mean(middles) + half)


def _trainings(scores: Sequence[Score], method: str) -> Trainings:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for score in scores:
        if score.method == method:
            found[score.task][score.training] = score.value
    return found


def _resampled(side: Trainings, tasks: Sequence[str], generator: np.random.Generator) -> np.ndarray:
    """Resampled means, shape (tasks, RESAMPLES); tasks with the same trainings share the draws."""
    picked: dict[tuple[str, ...], np.ndarray] = {}
    means = []
    for task in tasks:
        names = tuple(sorted(side[task]))
        if names not in picked:
            picked[names] = generator.integers(0, len(names), (len(names) - 1, RESAMPLES))
        means.append(np.array([side[task][name] for name in names])[picked[names]].mean(axis=0))
    return np.array(means)


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))
