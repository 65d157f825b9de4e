"""Differences to one method on a single task, from the deviation pooled over all methods (Dunnett). No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class TaskDifference:
    """Mean of a method minus mean of the control; the intervals of all methods hold together with 95 % chance."""

    estimate: float
    low: float | None = None
    high: float | None = None


def differences_to(samples: Mapping[str, Sequence[float]], control: str) -> dict[str, TaskDifference]:
    """Dunnett's many-to-one comparison.

    Args:
        samples: method -> a score per training.
        control: the method that the others are compared with.

    Returns:
        Method -> difference; without interval where the method or the control has one training, or nothing varies.
    """
    if control not in samples:
        return {}
    base = samples[control]
    found = {name: TaskDifference(float(np.mean(v) - np.mean(base))) for name, v in samples.items() if name != control}
    repeated = sorted(name for name in found if len(samples[name]) > 1)
    pooled, _ = pooled_deviation([samples[name] for name in samples])
    if len(base) < 2 or not repeated or not pooled:
        return found
    quantile = critical_value(tuple(len(samples[name]) for name in repeated), len(base))
    for name in repeated:
        half = quantile * pooled * math.sqrt(1 / len(samples[name]) + 1 / len(base))
        middle = found[name].estimate
        found[name] = TaskDifference(middle, middle - half, middle + half)
    return found


def pooled_deviation(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within samples, and its degrees of freedom; (0, 0) where no sample has two values."""
    freedom = sum(len(values) - 1 for values in samples)
    squares = sum(float(np.sum((np.asarray(values) - np.mean(values)) ** 2)) for values in samples)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


@cache
def critical_value(sizes: tuple[int, ...], control: int) -> float:
    """Half width of Dunnett's 95 % intervals in standard errors, which depends on the sample sizes alone.

    Args:
        sizes: of the samples.
        control: size of the control's sample.

    Returns:
        What `scipy.stats.dunnett` multiplies standard errors with, read off an example: it is too slow for each task.
    """
    samples = [np.arange(size, dtype=float) for size in (control, *sizes)]
    result = stats.dunnett(*samples[1:], control=samples[0], rng=0)
    half = float(np.diff(result.confidence_interval(0.95), axis=0)[0, 0]) / 2
    pooled, _ = pooled_deviation(samples)
    return half / (pooled * math.sqrt(1 / sizes[0] + 1 / control))
