"""Facts about a run that a column can show beside scores: parameters, seconds, bytes. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from eva_bench.reporting.archive import Run

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


FACTS: dict[str, Fact] = {
    "early_loss": _early_loss,
    "learning_rate": lambda run: run.lr,
    "parameters": lambda run: run.trainable_parameters,
    "adapter_bytes": lambda run: run.adapter_bytes,
    "init_seconds": _computed("init", "seconds"),
    "train_seconds": _computed("train", "seconds"),
    "init_share": _computed("init", "seconds", "train"),
    "init_peak_bytes": _computed("init", "memory_bytes"),
    "init_peak_share": _computed("init", "memory_bytes", "train"),
}
