"""Statistics over seeds and tasks, from plain numbers: scipy where it has them. No torch here.

Scores are given as {task: {seed: score}}. Tasks are strata: intervals resample seeds within every task, and never
tasks, so they speak about these tasks only (Agarwal et al., arXiv:2108.13264, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import special, stats

Scores = Mapping[str, Mapping[int, float]]

RESAMPLES = 2000
CONFIDENCE = 0.95


def interquartile_mean(values: Sequence[float] | np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of the middle half: a quarter of the values, rounded down, is cut off at each end (arXiv:2108.13264)."""
    return stats.trim_mean(np.asarray(values, dtype=float), 0.25, axis=axis)


def pooled(scores: Scores) -> list[float]:
    """All runs of all tasks."""
    return [score for task in sorted(scores) for _, score in sorted(scores[task].items())]


def task_mean(scores: Scores) -> float:
    """Mean over tasks of the means over seeds."""
    return float(np.mean([np.mean(list(by_seed.values())) for by_seed in scores.values()]))


def _mean_of_means(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)


def _pooled_iqm(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    return interquartile_mean(np.concatenate(samples, axis=axis), axis=axis)


def mean_interval(scores: Scores) -> tuple[float, float] | None:
    """95 % interval of `task_mean`, see `_interval`."""
    return _interval(scores, _mean_of_means)


def iqm_interval(scores: Scores) -> tuple[float, float] | None:
    """95 % interval of the interquartile mean over all runs, see `_interval`."""
    return _interval(scores, _pooled_iqm)


def _interval(scores: Scores, statistic: Callable) -> tuple[float, float] | None:
    """Percentile bootstrap, seeds resampled within every task; the same numbers every time.

    Returns:
        (low, high), or None where a task has fewer than two seeds: nothing is known about its noise.
    """
    samples = [[score for _, score in sorted(scores[task].items())] for task in sorted(scores)]
    if not samples or min(map(len, samples)) < 2:
        return None
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=0,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def differences(ours: Scores, theirs: Scores) -> dict[str, dict[int, float]]:
    """Paired differences where both have the task and the seed: the same training rows in the same order."""
    found = {
        task: {seed: score - theirs[task][seed] for seed, score in by_seed.items() if seed in theirs[task]}
        for task, by_seed in ours.items()
        if task in theirs
    }
    return {task: by_seed for task, by_seed in found.items() if by_seed}


def paired_p(found: Scores) -> float | None:
    """Two-sided p of a paired t test that the differences, over all tasks and seeds, have mean 0.

    Returns:
        None for fewer than two pairs. Differences that are all the same number have no spread: p is 1 if it is 0,
        else 0.
    """
    values = np.array(pooled(found))
    if len(values) < 2:
        return None
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return 1.0 if abs(values[0]) < 1e-12 else 0.0
    t = values.mean() / (values.std(ddof=1) / math.sqrt(len(values)))
    return float(2 * special.stdtr(len(values) - 1, -abs(t)))  # as stats.ttest_1samp, a hundred times as fast


def holm(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979): names -> adjusted p; None stays out."""
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = largest
    return adjusted


def probability_of_improvement(ours: Scores, theirs: Scores) -> float | None:
    """P(a run of ours beats a run of theirs), ties half, mean over common tasks (arXiv:2108.13264, section 4.3)."""
    shares = []
    for task in sorted(set(ours) & set(theirs)):
        mine, other = np.array(list(ours[task].values())), np.array(list(theirs[task].values()))
        shares.append(np.mean((np.sign(mine[:, None] - other) + 1) / 2))  # every pair: 1, 0.5 or 0
    return float(np.mean(shares)) if shares else None


def tied_with_best(rows: Mapping[str, Scores], best: str, level: float = 0.05) -> set[str]:
    """Rows with no significant difference to the best: Holm-adjusted p of the paired test at or above `level`.

    A row without two common pairs is not tested and not among them.
    """
    p_values = {name: paired_p(differences(scores, rows[best])) for name, scores in rows.items() if name != best}
    return {name for name, p in holm(p_values).items() if p >= level}
