"""What a cell of a table holds: mean and spread over seeds. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True)
class Value:
    """Mean and sample standard deviation of a metric over seeds.

    Attributes:
        tasks: (covered, wanted) where the value is a mean over tasks.
    """

    mean: float
    std: float | None
    n: int
    tasks: tuple[int, int] | None = None

    @classmethod
    def of(cls, values: Sequence[float], tasks: tuple[int, int] | None = None) -> Value | None:
        """The value of some scores, or None where there are none."""
        if not values:
            return None
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values), tasks)

    @property
    def complete(self) -> bool:
        """Whether no task is missing."""
        return self.tasks is None or self.tasks[0] == self.tasks[1]
