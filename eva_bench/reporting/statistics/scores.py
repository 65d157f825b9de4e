"""What statistics are made of: scores of trainings, and the scale on which they are compared. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

EDGE = 0.01  # keeps scores of 0 and 1 finite on the logit scale; differences below a point at the edges are no result


@dataclass(frozen=True)
class Score:
    """One score (0-1) of one training. A training that is tested on several tasks has several scores.

    Attributes:
        training: name of the training, the unit of replication: scores of one training are not independent.
    """

    method: str
    family: str
    task: str
    training: str
    value: float


def to_logit(values: np.ndarray) -> np.ndarray:
    """Scores on the logit scale, drawn in by EDGE at both ends; a negative correlation counts as 0."""
    return logit(EDGE + (1 - 2 * EDGE) * np.clip(values, 0, 1))


def from_logit(values: np.ndarray) -> np.ndarray:
    """The inverse of `to_logit`."""
    return (expit(values) - EDGE) / (1 - 2 * EDGE)


@dataclass(frozen=True)
class Link:
    """The scale on which a model is fitted, and the way back."""

    to: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


LOGIT = Link(to_logit, from_logit)
PLAIN = Link(np.asarray, np.asarray)  # for measures without bounds


def by_family(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """Family -> its scores, in a fixed order."""
    found: dict[str, list[Score]] = defaultdict(list)
    for score in sorted(scores, key=lambda s: (s.family, s.method, s.task, s.training)):
        found[score.family].append(score)
    return dict(found)


def task_means(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    """Task -> method -> mean over trainings."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        values[score.task][score.method].append(score.value)
    return {task: {name: float(np.mean(v)) for name, v in methods.items()} for task, methods in values.items()}


def balanced_means(scores: Iterable[Score]) -> dict[str, float]:
    """Method -> mean over families of the means over tasks, so that no family counts more for having more tasks.

    Only methods that have every task of every family: a mean of other tasks is a mean of something else.
    """
    families = {name: task_means(found) for name, found in by_family(scores).items()}
    tasks = [methods for found in families.values() for methods in found.values()]
    complete = set.intersection(*map(set, tasks)) if tasks else set()
    return {
        method: float(np.mean([np.mean([means[method] for means in found.values()]) for found in families.values()]))
        for method in sorted(complete)
    }
