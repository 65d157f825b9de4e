"""Facts about a run that a column can show beside scores: parameters, seconds, bytes. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable

from eva_bench.reporting.archive import Run

FORGETTING = "forgetting/loss"  # per prediction on held-out pretraining data

Fact = Callable[[Run], float | None]


def _computed(phase: str, key: str, share_of: str | None = None) -> Fact:
    """A cost of a phase, alone or as a share of another phase; None where one came from a cache."""
    phases = [phase, share_of] if share_of else [phase]

    def fact(run: Run) -> float | None:
        if any(run.reused.get(name) or name not in run.costs for name in phases):
            return None
        value = getattr(run.costs[phase], key)
        whole = getattr(run.costs[share_of], key) if share_of else 0
        return value / whole if whole else value

    return fact


def _early_loss(run: Run) -> float | None:
    """Mean training loss over the first quarter of the steps: how fast a method learns."""
    losses = [point[1] for point in run.curve if point[0] <= run.steps / 4]
    return sum(losses) / len(losses) if losses else None


def _forgetting(run: Run) -> float | None:
    """Logarithm of how many times larger the loss on pretraining data is after training: free of the loss's unit."""
    before, after = run.metrics_before.get(FORGETTING), run.metrics.get(FORGETTING)
    return math.log(after / before) if before and after and math.isfinite(after) else None


def _probe(name: str, key: str) -> Fact:
    """A number of `make probes`; None where the run was not probed."""
    return lambda run: run.probes.get(name, {}).get(key)


FACTS: dict[str, Fact] = {
    "early_loss": _early_loss,
    "forgetting": _forgetting,
    "intruders": _probe("intruders", "intruders"),
    "curvature": _probe("curvature", "largest"),
    "variation": _probe("variation", "mean_vectors"),
    "learning_rate": lambda run: run.lr,
    "parameters": lambda run: run.trainable_parameters,
    "adapter_bytes": lambda run: run.adapter_bytes,
    "init_seconds": _computed("init", "seconds"),
    "train_seconds": _computed("train", "seconds"),
    "init_share": _computed("init", "seconds", "train"),
    "init_peak_bytes": _computed("init", "memory_bytes"),
    "init_peak_share": _computed("init", "memory_bytes", "train"),
}
