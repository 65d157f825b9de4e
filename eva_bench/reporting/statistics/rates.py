"""Losses over learning rates: the best rate, the one that the one-standard-error rule takes, the optimum. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from eva_bench.reporting.statistics.per_task import pooled_deviation

RESAMPLES = 1000

Cell = tuple[str, int]  # task and seed
Interval = tuple[float, float | None, float | None]  # middle and ends; no ends for one value


@dataclass(frozen=True)
class Curve:
    """Losses of one method at several learning rates, each in the same cells (task and seed).

    A rate at which a run failed counts as infinitely bad.

    Attributes:
        rates: in rising order.
        losses: (rates, cells).
        cells: their names, task first.
    """

    rates: tuple[float, ...]
    losses: np.ndarray
    cells: tuple[Cell, ...] = ()

    @classmethod
    def of(cls, values: Mapping[float, Mapping[Cell, float | None]]) -> Curve:
        """A curve from losses by rate and cell; None is a failed run. Cells that not every rate has are left out.

        Raises:
            ValueError: no cell that every rate has.
        """
        rates = tuple(sorted(values))
        cells = [cell for cell in values[rates[0]] if all(cell in values[rate] for rate in rates)] if rates else []
        if not cells:
            raise ValueError("no task and seed has a run at every learning rate of the grid")
        failed = {rate for rate in rates if None in values[rate].values()}
        losses = [[math.inf if rate in failed else values[rate][cell] for cell in cells] for rate in rates]
        return cls(rates, np.array(losses, dtype=float), tuple(cells))

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

        With one seed there is no standard error, and the best rate is taken.
        """
        best = position = self.rates.index(self.best)
        while position > 0 and np.isfinite(self.losses[position - 1]).all():
            differences = self.losses[position - 1] - self.losses[best]
            error = self._standard_error(differences)
            if error is None or differences.mean() > error:
                break
            position -= 1
        return self.rates[position]

    def _standard_error(self, differences: np.ndarray) -> float | None:
        """Of the mean difference (cells,) between two rates; None where a task has one seed.

        Seeds are noise, tasks are not: all methods have the same ones. That a higher rate suits one task and not the
        other is no uncertainty of the mean over both.
        """
        tasks = [cell[0] for cell in self.cells]
        found = [differences[[name == task for name in tasks]] for task in dict.fromkeys(tasks)]
        if min(map(len, found)) < 2:
            return None
        return math.sqrt(sum(values.var(ddof=1) / len(values) for values in found)) / len(found)

    @property
    def spacing(self) -> float | None:
        """The larger factor between the best rate and its neighbours; None of a single rate."""
        best = self.rates.index(self.best)
        near = self.rates[max(best - 1, 0) : best + 2]
        return max((high / low for low, high in pairwise(near)), default=None)

    @property
    def at_edge(self) -> bool:
        """Whether the best or the chosen rate is an end of the grid, beyond which a better one may lie."""
        return len(self.rates) > 1 and bool({self.best, self.chosen} & {self.rates[0], self.rates[-1]})

    @property
    def optima(self) -> dict[Cell, float]:
        """Cell -> its best rate between those of the grid.

        The lowest point of the parabola through the lowest loss and its neighbours, over the logarithm of the rate; at
        an end of the grid that end.
        """
        return {cell: self._lowest(self.losses[:, i]) for i, cell in enumerate(self.cells)}

    def moved(self, steps: int = 1) -> float | None:
        """How often the choice falls more than some steps of the grid away when seeds are drawn again.

        Seeds are resampled within tasks, as often as there are seeds; the same draws every time. None where a task has
        one seed, of which nothing can be drawn.
        """
        generator = np.random.default_rng(0)
        tasks = [cell[0] for cell in self.cells]
        of_task = [[i for i, name in enumerate(tasks) if name == task] for task in dict.fromkeys(tasks)]
        if min(map(len, of_task), default=0) < 2:
            return None
        draws = [np.sort(generator.choice(found, (RESAMPLES, len(found))), axis=1) for found in of_task]
        chosen, far = self.rates.index(self.chosen), 0
        for picked, times in Counter(map(tuple, np.hstack(draws).tolist())).items():
            again = Curve(self.rates, self.losses[:, list(picked)], tuple(self.cells[i] for i in picked))
            far += times * (abs(self.rates.index(again.chosen) - chosen) > steps)
        return far / RESAMPLES

    def _lowest(self, losses: np.ndarray) -> float:
        best = int(np.argmin(losses))
        if best in (0, len(losses) - 1):
            return self.rates[best]
        x = np.log(self.rates[best - 1 : best + 2])
        (left, right), (down, up) = np.diff(x), losses[[best - 1, best + 1]] - losses[best]
        if not math.isfinite(up):
            return float(np.exp(x[1] - (left / 2 if math.isfinite(down) else 0)))
        if not math.isfinite(down):
            return float(np.exp(x[1] + right / 2))
        bend = down * right + up * left
        return float(np.exp(x[1] + (down * right**2 - up * left**2) / (2 * bend))) if bend else self.rates[best]


def geometric_means(samples: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Geometric mean of every sample, with a 95 % t interval from the deviation pooled over all samples (logarithms).

    Without ends where no sample has two values, or none varies.
    """
    logs = {name: np.log(values) for name, values in samples.items()}
    deviation, freedom = pooled_deviation(list(logs.values()))
    quantile = float(stats.t.ppf(0.975, freedom)) if deviation else 0.0
    found: dict[str, Interval] = {}
    for name, values in logs.items():
        middle, half = float(values.mean()), quantile * deviation / math.sqrt(len(values))
        ends = (math.exp(middle - half), math.exp(middle + half)) if deviation else (None, None)
        found[name] = (math.exp(middle), *ends)
    return found
