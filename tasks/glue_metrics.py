"""GLUE's metrics from samples alone. No torch here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from scipy.special import log_softmax
from sklearn import metrics as sk

from tasks.samples import constant_answer


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.matthews_corrcoef(labels, predictions))  # 0 where the predictions are constant


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(labels == predictions))


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.f1_score(labels, predictions, zero_division=0))


def _correlation(kind: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    def correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
        if _is_constant(predictions) or _is_constant(labels):
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            value = kind(labels, predictions).statistic
        return float(value) if np.isfinite(value) else 0.0

    return correlation


METRICS = {
    "matthews": _matthews,
    "accuracy": _accuracy,
    "f1": _f1,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}


def glue_scores(samples: Sequence[dict], names: Sequence[str], regression: bool) -> dict[str, float]:
    """Metrics of answered rows.

    Args:
        samples: with label, prediction, outputs, truncated, part.
        names: keys of METRICS; `accuracy_matched` is the accuracy of the rows of part `matched`.
        regression: whether outputs are degrees, not logits of classes.

    Returns:
        The named metrics that have rows; `majority`, the first of them for the best constant answer, and
        `constant_loss`, that answer's loss; `collapsed`, 1 if all predictions are the same; `truncated`, the share of
        rows that were; `reference_loss`, mean cross-entropy or squared error.
    """
    labels = np.array([sample["label"] for sample in samples], dtype=float)
    predictions = np.array([sample["prediction"] for sample in samples], dtype=float)
    parts = np.array([sample["part"] or "matched" for sample in samples])  # held-out training rows have none
    scores = {}
    for name in names:
        metric, _, part = name.partition("_")
        rows = parts == part if part else np.ones(len(samples), dtype=bool)
        if rows.any():
            scores[name] = METRICS[metric](labels[rows], predictions[rows])
    outputs = np.array([sample["outputs"] for sample in samples], dtype=float)  # (n, classes)
    if regression:
        losses = (outputs[:, 0] - labels) ** 2
        constant = {"constant_loss": float(labels.var())}
    else:
        constant = constant_answer(labels.tolist())
        losses = -log_softmax(outputs, axis=1)[np.arange(len(labels)), labels.astype(int)]
    if not names[0].startswith("accuracy"):
        constant["majority"] = 0.0  # a constant correlates with nothing
    return (
        scores
        | constant
        | {
            "collapsed": float(_is_constant(predictions)),
            "truncated": float(np.mean([sample["truncated"] for sample in samples])),
            "reference_loss": float(losses.mean()),
        }
    )


def _is_constant(values: np.ndarray) -> bool:
    """Whether all values are the same, up to rounding."""
    return bool(np.ptp(values) <= 1e-6 * max(1.0, float(np.abs(values).max())))
