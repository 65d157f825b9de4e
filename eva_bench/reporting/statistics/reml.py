"""A mixed model of one family's scores, fitted by restricted maximum likelihood (REML). No torch here.

score of a training on a task = task + method      fixed
                              + method x task      random: how a method does on tasks like these
                              + training + rest    random: what another seed would give

on the logit scale. Beside statsmodels' MixedLM (a test holds both to the same numbers) this fit gives Satterthwaite's
degrees of freedom, and does not cut variances off at zero. The cut-off makes intervals of few seeds too narrow; without
it they are exact for balanced data (Stroup, Generalized Linear Mixed Models, 2013).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eva_bench.reporting.statistics.scores import LOGIT, Link, Score

STEPS, HALVINGS = 50, 40
GAIN = 1e-9  # of the log-likelihood in the last step
NO_SPREAD = 1e-10  # variance of the residuals on the logit scale below which trainings are all the same


@dataclass(frozen=True)
class Fit:
    """The fitted model of a family with M methods and T tasks, on the logit scale.

    Attributes:
        methods: names, sorted; the first one is the reference.
        effects: of the methods against the reference, shape (M,).
        levels: of the tasks for the reference, shape (T,).
        covariance: of `effects`, shape (M, M).
        slopes: derivative of `covariance` by each variance, shape (variances, M, M).
        variances: name of a random term -> its variance.
        uncertainty: covariance matrix of the variances.
        seeds: method -> largest number of trainings on one task.
    """

    methods: list[str]
    effects: np.ndarray
    levels: np.ndarray
    covariance: np.ndarray
    slopes: np.ndarray
    variances: dict[str, float]
    uncertainty: np.ndarray
    seeds: dict[str, int]

    def variance_with(self, seeds: float) -> float:
        """Variance of a difference of two methods if each had so many seeds of every task; inf: what tasks leave."""
        tasks = len(self.levels)
        found = {name: max(0.0, value) for name, value in self.variances.items()}
        noise = found.get("training", 0.0) + found["rest"] / tasks
        return 2 * (found.get("method x task", 0.0) / tasks + noise / seeds)


def fit(scores: Sequence[Score], link: Link = LOGIT) -> Fit | None:
    """Fit the model.

    Args:
        scores: of one family.
        link: the scale of the model.

    Returns:
        The fit, or None where nothing tells how much trainings differ: one method, one seed, or no spread at all.
    """
    methods, tasks = sorted({s.method for s in scores}), sorted({s.task for s in scores})
    cells = Counter((s.method, s.task) for s in scores)
    seeds = {method: max(n for (name, _), n in cells.items() if name == method) for method in methods}
    if len(methods) < 2 or max(seeds.values()) < 2:
        return None
    shared = len({(s.method, s.training) for s in scores}) < len(scores)
    names = ["method x task"] * (len(tasks) > 1) + ["training"] * shared + ["rest"]
    grouped = [[s for s in scores if s.method == method] for method in methods]
    try:
        state = _maximise([_Block.of(own, methods, tasks, names, link) for own in grouped], len(names))
    except np.linalg.LinAlgError:  # methods that are exactly parallel over tasks: that variance is at its lower end
        names = [name for name in names if name != "method x task"]
        state = _maximise([_Block.of(own, methods, tasks, names, link) for own in grouped], len(names))
    if state is None:
        return None
    pick = slice(len(tasks), None)
    pad = ((1, 0), (1, 0))  # the reference has effect 0, without error
    slopes = [np.pad((state.inverse @ part @ state.inverse)[pick, pick], pad) for part in state.sandwiches]
    return Fit(
        methods=methods,
        effects=np.concatenate([[0.0], state.beta[pick]]),
        levels=state.beta[: len(tasks)],
        covariance=np.pad(state.inverse[pick, pick], pad),
        slopes=np.stack(slopes),
        variances=dict(zip(names, map(float, state.theta), strict=True)),
        uncertainty=np.linalg.inv(state.information),
        seeds=seeds,
    )


@dataclass(frozen=True)
class _Block:
    """The n scores of one method: response (n,), fixed design (n, p), a matrix (n, n) per random term."""

    y: np.ndarray
    x: np.ndarray
    terms: list[np.ndarray]

    @classmethod
    def of(cls, scores: Sequence[Score], methods: list[str], tasks: list[str], names: list[str], link: Link) -> _Block:
        task = np.array([tasks.index(s.task) for s in scores])
        training = np.unique([s.training for s in scores], return_inverse=True)[1]
        x = np.zeros((len(scores), len(tasks) + len(methods)))
        x[np.arange(len(scores)), task] = 1
        x[:, len(tasks) + methods.index(scores[0].method)] = 1
        same = {
            "method x task": np.equal.outer(task, task).astype(float),
            "training": np.equal.outer(training, training).astype(float),
            "rest": np.eye(len(scores)),
        }
        without_reference = np.delete(x, len(tasks), axis=1)
        return cls(link.to(np.array([s.value for s in scores])), without_reference, [same[name] for name in names])

    @cached_property
    def key(self) -> bytes:
        """Methods with the same pattern of tasks and trainings share their matrices."""
        return b"".join(term.tobytes() for term in self.terms)


class _State:
    """Restricted likelihood, its slope and information at given variances.

    Raises:
        numpy.linalg.LinAlgError: the variances make no covariance matrix.
    """

    def __init__(self, blocks: Sequence[_Block], theta: np.ndarray):
        self.theta = theta
        solved = {block.key: _solve(block.terms, theta) for block in blocks}
        parts = [(block, *solved[block.key]) for block in blocks]
        weighted = [inverse @ block.x for block, inverse, *_ in parts]
        gram = sum(block.x.T @ w for block, w in zip(blocks, weighted, strict=True))
        self.inverse = np.linalg.inv(gram)
        self.beta = self.inverse @ sum(w.T @ block.y for block, w in zip(blocks, weighted, strict=True))
        left = [inverse @ (block.y - block.x @ self.beta) for block, inverse, *_ in parts]
        logdet = sum(part[2] for part in parts) + np.linalg.slogdet(gram)[1]
        fitted = sum(block.y @ r for block, r in zip(blocks, left, strict=True))
        self.likelihood = -0.5 * (logdet + fitted)

        terms = range(len(theta))
        self.sandwiches = [sum(w.T @ b.terms[i] @ w for b, w in zip(blocks, weighted, strict=True)) for i in terms]
        reduced = [self.inverse @ part for part in self.sandwiches]
        self.slope, self.information = np.empty(len(theta)), np.empty((len(theta), len(theta)))
        for i in terms:
            explained = sum(r @ b.terms[i] @ r for b, r in zip(blocks, left, strict=True))
            expected = sum(np.trace(part[3][i]) for part in parts) - np.trace(reduced[i])
            self.slope[i] = 0.5 * (explained - expected)
            for j in terms:
                crossed = sum(w.T @ p[0].terms[i] @ p[3][j] @ w for p, w in zip(parts, weighted, strict=True))
                whole = sum(np.sum(part[3][i] * part[3][j].T) for part in parts)
                both = np.sum(reduced[i] * reduced[j].T)
                self.information[i, j] = 0.5 * (whole - 2 * np.sum(self.inverse * crossed.T) + both)


def _solve(terms: Sequence[np.ndarray], theta: np.ndarray) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Inverse and log determinant of a method's covariance V, and V^-1 times each term's matrix."""
    covariance = sum(value * term for value, term in zip(theta, terms, strict=True))
    diagonal = np.diag(np.linalg.cholesky(covariance))
    inverse = np.linalg.inv(covariance)
    return inverse, 2 * float(np.log(diagonal).sum()), [inverse @ term for term in terms]


def _maximise(blocks: Sequence[_Block], terms: int) -> _State | None:
    """The state of largest likelihood: Fisher scoring, steps halved until the likelihood rises; None without spread."""
    x, y = np.vstack([block.x for block in blocks]), np.concatenate([block.y for block in blocks])
    variance = float(np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]))
    if variance < NO_SPREAD:
        return None
    state = _State(blocks, np.full(terms, variance / terms))
    for _ in range(STEPS):
        step = np.linalg.solve(state.information, state.slope)
        if step @ state.slope < GAIN:
            break
        for _ in range(HALVINGS):
            try:
                new = _State(blocks, state.theta + step)
            except np.linalg.LinAlgError:
                new = None
            if new is not None and new.likelihood > state.likelihood:
                break
            step = step / 2
        else:
            break
        state = new
    return state
