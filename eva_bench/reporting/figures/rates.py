"""Scores over learning rates, a panel per method: chosen rate, optimum with its interval, plateau. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.figures.style import Drawing, look, panels
from eva_bench.reporting.rates import Tuned, optima
from eva_bench.reporting.statistics.rates import Interval
from eva_bench.reporting.tables.spec import read_table
from eva_bench.reporting.tables.tuning import tuned_families
from eva_bench.system.paths import CONF

CAPTION = (
    "Validation score by learning rate on the tuning tasks of {family}, beside the other methods in grey. Ring: the "
    "chosen rate. Cross and line at the bottom: the rate of least loss with its 95 % interval. Shaded: within two "
    "points of the best score."
)


def draw_rates(archive: Archive, scale: str) -> Iterator[Drawing]:
    """A figure per family that has tuning runs."""
    overall = read_table(CONF / "table" / "overall.yaml")
    for family, methods in tuned_families(archive.tuning, scale, overall.methods).items():
        figure, axes = panels(len(methods), 2.1, 1.6)
        best = optima(methods)
        rates = [rate for tuned in methods.values() for rate in tuned.curve.rates]
        top = 100 * max(score for tuned in methods.values() for score in tuned.scores.values())
        for ax, (title, tuned) in zip(axes, methods.items(), strict=True):
            for other in methods.values():
                ax.plot(*_points(other), color="#dddddd", linewidth=0.8, zorder=0)
            _draw(ax, title, tuned, best[title], top)
            ax.set(xscale="log", xlim=(min(rates) / 1.5, max(rates) * 1.5), ylim=(-0.12 * top, 1.08 * top))
            ax.xaxis.set_major_locator(LogLocator(numticks=9))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.label_outer()
        figure.supxlabel("learning rate", fontsize=9)
        figure.supylabel("validation score, %", fontsize=9)
        yield Drawing(f"rates-{scale}-{family}", figure, CAPTION.format(family=family))


def _draw(ax: Axes, title: str, tuned: Tuned, optimum: Interval, top: float) -> None:
    style = look(title)
    low, high = tuned.plateau
    ax.axvspan(low / 1.15, high * 1.15, color="#eeeeee", linewidth=0)
    ax.plot(*_points(tuned), linewidth=1.4, markersize=4, **style)
    chosen = tuned.curve.chosen
    if (score := tuned.scores.get(chosen)) is not None:
        ax.plot(chosen, 100 * score, "o", markersize=10, fillstyle="none", color="black", markeredgewidth=0.9)
    middle, start, end = optimum
    if start is not None and end is not None:
        ax.plot([start, end], [-0.06 * top] * 2, color=style["color"], linewidth=1.5)
    ax.plot(middle, -0.06 * top, "x", color="black", markersize=5)
    ax.set_title(title + (" (edge)" if tuned.curve.at_edge else ""))


def _points(tuned: Tuned) -> tuple[list[float], np.ndarray]:
    rates = [rate for rate in tuned.curve.rates if rate in tuned.scores]
    return rates, 100 * np.array([tuned.scores[rate] for rate in rates])
