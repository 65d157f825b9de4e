"""Differences between methods over families of tasks, with intervals and verdicts from one model. No torch here."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from eva_bench.reporting.statistics.reml import Fit, fit
from eva_bench.reporting.statistics.scores import LOGIT, Link, Score, by_family, task_means

MARGIN = 0.02  # methods within two points of each other count as equivalent
CONFIDENCE = 0.95
MOST_SEEDS = 200  # beyond which more seeds are no answer

Verdict = Literal["different", "equivalent", "undecided"]


@dataclass(frozen=True)
class Difference:
    """A difference of two methods' scores (0-1), mean over families, and what it is worth.

    Attributes:
        estimate: score of ours minus score of theirs.
        low, high: ends of the 95 % interval; None where nothing tells how much trainings differ.
        seeds: that would decide if the estimate stayed what it is; None if decided, or if no number would.
        margin: differences below it count as none.
    """

    ours: str
    theirs: str
    estimate: float
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    margin: float = MARGIN

    @property
    def verdict(self) -> Verdict:
        """`equivalent`: the interval lies within the margin; `different`: it excludes 0; `undecided`: neither.

        What lies within the margin is equivalent even if it excludes 0: a difference, but one too small to matter.
        """
        if self.low is None or self.high is None:
            return "undecided"
        if self.margin and self.low >= -self.margin and self.high <= self.margin:
            return "equivalent"
        return "different" if self.low > 0 or self.high < 0 else "undecided"


class Model:
    """One mixed model of all scores: families have their own variances, so that they are fitted one by one.

    Args:
        scores: of every method, family and task.
        link: the scale of the model.
        margin: differences below it count as none.
    """

    def __init__(self, scores: Sequence[Score], link: Link = LOGIT, margin: float = MARGIN):
        self.link, self.margin = link, margin
        self.methods = sorted({score.method for score in scores})
        self.scores = by_family(scores)
        self.fits: Mapping[str, Fit | None] = {family: fit(found, link) for family, found in self.scores.items()}

    def difference(
        self, ours: str, theirs: str, families: Sequence[str] | None = None, confidence: float = CONFIDENCE
    ) -> Difference | None:
        """The difference of two methods, mean over families.

        Args:
            ours: a method.
            theirs: another method.
            families: which; None: all.
            confidence: of the interval.

        Returns:
            The difference, without interval where a method has one seed only; None where one lacks a family.
        """
        wanted = list(self.scores) if families is None else list(families)
        present = [{score.method for score in self.scores.get(name, ())} for name in wanted]
        if not wanted or not all({ours, theirs} <= methods for methods in present):
            return None
        fits = [self.fits[name] for name in wanted]
        if any(found is None or min(found.seeds[ours], found.seeds[theirs]) < 2 for found in fits):
            return Difference(ours, theirs, float(np.mean([self._raw(name, ours, theirs) for name in wanted])))
        parts = [_Part(found, self.link, ours, theirs, 1 / len(fits)) for found in fits if found is not None]
        estimate = sum(part.estimate for part in parts)
        variance = sum(part.variance for part in parts)
        freedom = 2 * variance**2 / sum(part.uncertainty for part in parts)
        quantile = float(stats.t.ppf((1 + confidence) / 2, freedom))
        half = quantile * math.sqrt(variance)
        found = Difference(ours, theirs, estimate, estimate - half, estimate + half, margin=self.margin)
        return found if found.verdict != "undecided" else replace(found, seeds=_seeds_needed(parts, found, quantile))

    def _raw(self, family: str, ours: str, theirs: str) -> float:
        """Mean difference over the common tasks, for want of a model."""
        means = task_means(self.scores[family]).values()
        return float(np.mean([found[ours] - found[theirs] for found in means if {ours, theirs} <= set(found)]))


class _Part:
    """A family's share of a difference: estimate, variance, and the variance of that variance, in scores.

    The model lives on the logit scale. A difference there is shown in points at the level of the family's tasks,
    halfway between the two methods; errors follow by the delta method.
    """

    def __init__(self, found: Fit, link: Link, ours: str, theirs: str, weight: float):
        i, j = found.methods.index(ours), found.methods.index(theirs)
        weights = np.zeros(len(found.methods))
        weights[i], weights[j] = 1, -1
        low, high = found.levels + found.effects[j], found.levels + found.effects[i]
        self.fit = found
        self.seeds = min(found.seeds[ours], found.seeds[theirs])
        self.estimate = weight * float(np.mean(link.back(high) - link.back(low)))
        self.slope = weight * float(np.mean(_steepness(link, low) + _steepness(link, high)) / 2)
        self.variance = self.slope**2 * float(weights @ found.covariance @ weights)
        gradient = self.slope**2 * np.array([weights @ part @ weights for part in found.slopes])
        self.uncertainty = float(gradient @ found.uncertainty @ gradient)

    def variance_with(self, seeds: int) -> float:
        """The variance if both methods had so many seeds, other things (tasks that are missing) staying as they are."""
        return self.variance * self.fit.variance_with(seeds) / self.fit.variance_with(self.seeds)


def _steepness(link: Link, level: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Derivative of the way back."""
    return (link.back(level + step) - link.back(level - step)) / (2 * step)


def _seeds_needed(parts: Sequence[_Part], found: Difference, quantile: float) -> int | None:
    """The least number of seeds of every task at which the same estimate would be `different` or `equivalent`."""

    def decides(seeds: int) -> bool:
        half = quantile * math.sqrt(sum(part.variance_with(seeds) for part in parts))
        low, high = found.estimate - half, found.estimate + half
        return replace(found, low=low, high=high).verdict != "undecided"

    tried = range(min(part.seeds for part in parts) + 1, MOST_SEEDS + 1)
    first = bisect_left(tried, True, key=decides)  # intervals shrink with seeds: what is decided stays so
    return tried[first] if first < len(tried) else None
