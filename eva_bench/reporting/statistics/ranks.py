"""Ranks over tasks with a critical difference, and who wins how often. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from eva_bench.reporting.statistics.scores import Score, task_means

Means = Mapping[str, Mapping[str, float]]  # block -> method -> score


def block_means(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Means by block: tasks that are tested after the same trainings make one block, for they are not independent."""
    tasks: dict[str, set[str]] = defaultdict(set)  # training -> tasks
    for score in scores:
        tasks[f"{score.method}/{score.training}"].add(score.task)
    block = {task: min(shared) for shared in sorted(map(sorted, tasks.values()), key=len) for task in shared}
    parts: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for task, means in task_means(scores).items():
        parts[block[task]].append(means)
    return {
        name: {
            method: float(np.mean([part[method] for part in found])) for method in set.intersection(*map(set, found))
        }
        for name, found in sorted(parts.items())
    }


def mean_ranks(means: Means) -> dict[str, float]:
    """Method -> mean rank over blocks, 1 is best, ties share; of the methods that have every block."""
    methods = sorted(set.intersection(*map(set, means.values()))) if means else []
    if not methods:
        return {}
    ranks = [stats.rankdata([-found[method] for method in methods]) for found in means.values()]
    return dict(zip(methods, map(float, np.mean(ranks, axis=0)), strict=True))


def critical_difference(methods: int, blocks: int) -> float:
    """Nemenyi's difference of mean ranks that chance exceeds in 5 % of cases, over all pairs of methods.

    Demšar, Journal of Machine Learning Research 7 (2006), section 3.2.2.
    """
    quantile = stats.studentized_range.ppf(0.95, methods, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(methods * (methods + 1) / (6 * blocks)))


def wins(means: Means, ours: str, theirs: str) -> float | None:
    """Share of the common blocks in which ours has the higher score, ties half; None without common blocks."""
    pairs = [(found[ours], found[theirs]) for found in means.values() if ours in found and theirs in found]
    return float(np.mean([(np.sign(a - b) + 1) / 2 for a, b in pairs])) if pairs else None
