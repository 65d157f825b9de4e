"""Which tasks tell methods apart, so that conclusions may rest on them. No torch here.

Reliability is the share of the variance of the methods' means that is not noise of seeds: with s^2 the variance over
seeds pooled over methods, n seeds a method and V the variance of the means, 1 - s^2 / (n V). That is 1 - 1/F of a
one-way analysis of variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import harmonic_mean, mean, variance
from typing import Literal

ENOUGH = 0.8  # reliability from which a task may carry a conclusion
NEAR = 0.02  # scores this close to the ceiling or the floor count as having reached it


@dataclass(frozen=True)
class Judgement:
    """What a task tells about methods. Scores are between 0 and 1.

    Attributes:
        reliability: share of the variance of the methods' means that is not noise of seeds.
        low: lowest mean of a method.
        high: highest mean of a method.
        deviation: standard deviation over seeds, pooled over methods.
        floor: what is reached without learning.
        ceiling: what nothing exceeds.
    """

    reliability: float
    low: float
    high: float
    deviation: float
    floor: float = 0.0
    ceiling: float = 1.0

    @property
    def mark(self) -> Literal["ceiling", "floor", "unreliable"] | None:
        """Why no conclusion rests on the task; None where one may."""
        if self.low >= self.ceiling - NEAR:
            return "ceiling"
        if self.high <= self.floor + NEAR:
            return "floor"
        return "unreliable" if self.reliability < ENOUGH else None


def judge(samples: Sequence[Sequence[float]], floor: float = 0.0, ceiling: float = 1.0) -> Judgement:
    """The judgement on a task.

    Args:
        samples: for every method its scores, one a training.
        floor: best score that is reached without learning.
        ceiling: best score that can be reached.
    """
    share, deviation = reliability(samples)
    means = [mean(found) for found in samples]
    return Judgement(share, min(means), max(means), deviation, floor, ceiling)


def reliability(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Reliability of a task, and the standard deviation over seeds pooled over methods.

    Args:
        scores: for every method its scores, one a seed; methods of one seed say nothing of noise.

    Returns:
        (reliability from 0 to 1, 0 where no method differs from another; standard deviation).
    """
    freedom = sum(len(found) - 1 for found in scores)
    noise = sum((len(found) - 1) * variance(found) for found in scores if len(found) > 1) / freedom
    spread = variance([mean(found) for found in scores])
    share = noise / harmonic_mean([len(found) for found in scores])
    return (max(0.0, 1 - share / spread) if spread else 0.0), sqrt(noise)
