"""What the cells share that run one after the other in one process. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eva_bench.system.signals import StopSignal

if TYPE_CHECKING:
    from eva_bench.task import TrainData


@dataclass
class Session:
    """The wish to stop, and the training examples that the last cell encoded, by fingerprint."""

    stop: StopSignal
    encoded: dict[str, TrainData] = field(default_factory=dict)
