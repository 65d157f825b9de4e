"""Losses over learning rates: the best rate, and the one that the one-standard-error rule takes. No torch here."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Curve:
    """Losses of one method at several learning rates, each in the same cells (task and seed).

    A rate at which a run failed counts as infinitely bad.

    Attributes:
        rates: in rising order.
        losses: (rates, cells).
    """

    rates: tuple[float, ...]
    losses: np.ndarray

    @classmethod
    def of(cls, values: Mapping[float, Mapping[Hashable, float | None]]) -> Curve:
        """A curve from losses by rate and cell; None is a failed run. Cells that not every rate has are left out.

        Raises:
            ValueError: no cell that every rate has.
        """
        rates = tuple(sorted(values))
        cells = [cell for cell in values[rates[0]] if all(cell in values[rate] for rate in rates)]
        if not cells:
            raise ValueError("no task and seed has a run at every learning rate of the grid")
        failed = {rate for rate in rates if None in values[rate].values()}
        losses = [[math.inf if rate in failed else values[rate][cell] for cell in cells] for rate in rates]
        return cls(rates, np.array(losses, dtype=float))

    def mean(self, rate: float) -> float:
        """The mean loss at a rate."""
        return float(self.losses[self.rates.index(rate)].mean())

    @property
    def best(self) -> float:
        """The rate with the lowest mean loss; the lowest of equals."""
        return self.rates[int(np.argmin(self.losses.mean(axis=1)))]

    @property
    def chosen(self) -> float:
        """One-standard-error rule: from the best rate down as long as the loss is within one standard error of it.

        The standard error is that of the differences within cells: what tasks and rows of a seed have in common at all
        rates is no noise here. With one cell there is none, and the best rate is taken.
        """
        best = position = self.rates.index(self.best)
        while position > 0 and self.losses.shape[1] > 1 and np.isfinite(self.losses[position - 1]).all():
            differences = self.losses[position - 1] - self.losses[best]
            if differences.mean() > differences.std(ddof=1) / math.sqrt(len(differences)):
                break
            position -= 1
        return self.rates[position]

    @property
    def spacing(self) -> float | None:
        """The larger factor between the best rate and its neighbours; None of a single rate."""
        best = self.rates.index(self.best)
        near = self.rates[max(best - 1, 0) : best + 2]
        return max((high / low for low, high in pairwise(near)), default=None)
