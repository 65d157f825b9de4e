"""Statements that are no comparison of scores: best rates, correlations, pretrainings. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.claims.finding import (
    Finding,
    Verdict,
    by_expectation,
    columns_of,
    interval_text,
    mean_interval,
)
from eva_bench.reporting.claims.spec import BestRate, Correlation, Matching
from eva_bench.reporting.rates import curve_of
from eva_bench.reporting.tables.cells import RATE, belongs
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.spec import read_table
from eva_bench.system.paths import CONF

LARGEST = 0.9999  # correlation that Fisher's transformation is given

Measured = dict[str, list[tuple[float, float]]]  # method -> both measures of its trainings


def best_rate(archive: Archive, scale: str, statement: BestRate) -> Finding:
    """The ratio of two methods' best learning rates by validation loss, between the rates of the grid.

    The unit is the task, mean over its seeds; with one task the seed. Tasks that share their trainings are one. An
    optimum at an end of the grid is no more than a bound, so that it decides nothing that lies on its open side.
    """
    sides = [statement.ours.row, statement.theirs.row]
    table = read_table(CONF / "table" / "overall.yaml")
    tasks = dict.fromkeys(column.task for column in columns_of(archive, table, scale, statement, None))
    ratios: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))  # task -> seed -> logarithms
    first: dict[str, str] = {}  # training -> the first task that it was made for
    trainings: set[str] = set()
    pairs = edges = 0
    open_sides: set[int] = set()  # 1: the ratio may be higher, -1: lower
    for task in tasks:
        runs = archive.of(scale, task, None, statement.stage)
        ours, theirs = (_optima([run for run in runs if belongs(run, row, {RATE})]) for row in sides)
        for seed in sorted(set(ours) & set(theirs)):
            made_for = first.setdefault(min(ours[seed].trainings), task)
            ratios[made_for][seed].append(math.log(ours[seed].rate / theirs[seed].rate))
            trainings |= ours[seed].trainings | theirs[seed].trainings
            open_sides |= {ours[seed].end, -theirs[seed].end}
            pairs += 1
            edges += bool(ours[seed].end or theirs[seed].end)
    what = f"best learning rate of {sides[0].title} over that of {sides[1].title}"
    if not ratios:
        return Finding(f"{what}: not run", "not run")
    of_seeds = [[float(np.mean(found)) for found in by_seed.values()] for by_seed in ratios.values()]
    units = [float(np.mean(found)) for found in of_seeds] if len(of_seeds) > 1 else of_seeds[0]
    middle, low, high = mean_interval(units)
    text = f"{what}: {math.exp(middle):.2g}"
    if low is not None and high is not None:
        low, high = math.exp(low), math.exp(high)
        text += f" [{low:.2g}, {high:.2g}]"
    text += f" over {len(units)} {'tasks' if len(of_seeds) > 1 else 'seeds'}"
    if edges:
        text += f", {edges} of {pairs} pairs of grids with an optimum at an end"
    return Finding(text, _ratio_verdict(low, high, statement.between, open_sides), len(trainings))


def _ratio_verdict(
    low: float | None, high: float | None, between: tuple[float | None, float | None], open_sides: Collection[int]
) -> Verdict:
    """Where an interval lies whose ratio may be higher (1 in `open_sides`) or lower (-1) than the grids could show."""
    if low is None or high is None:
        return "undecided"
    start, stop = between
    inside_below = start is None or (low > start and -1 not in open_sides)
    if inside_below and (stop is None or (high < stop and 1 not in open_sides)):
        return "confirmed"
    below = start is not None and high < start and 1 not in open_sides
    above = stop is not None and low > stop and -1 not in open_sides
    return "contradicted" if below or above else "undecided"


@dataclass(frozen=True)
class _Optimum:
    """A method's best learning rate on one task and seed; `end` is -1 or 1 at the lower or upper end of its grid."""

    rate: float
    end: int
    trainings: set[str]


def _optima(runs: Sequence[Run]) -> dict[int, _Optimum]:
    """Seed -> optimum, of grids of at least three rates of which one did not fail."""
    by_seed: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        if run.status in ("ok", "failed"):
            by_seed[run.seed].append(run)
    found = {}
    for seed, tried in by_seed.items():
        curve = curve_of("", tried)
        if len(curve.rates) > 2 and math.isfinite(curve.mean(curve.best)):
            end = {curve.rates[0]: -1, curve.rates[-1]: 1}.get(curve.best, 0)
            (rate,) = curve.optima.values()
            found[seed] = _Optimum(rate, end, {run.train_id for run in tried})
    return found


def correlation(archive: Archive, scale: str, statement: Correlation) -> Finding:
    """Ranks are taken within each task; the tasks' correlations are averaged by Fisher's transformation.

    Trainings of one method are alike, so that their interval is a jackknife over methods. That of methods' means is
    Bonett and Wright's (Psychometrika 65, 2000).
    """
    table = read_table(CONF / "table" / "overall.yaml")
    tasks = {column.task for column in columns_of(archive, table, scale, statement, None)}
    parts: list[tuple[float, float, float]] = []  # of every task: transformed correlation, variance, quantile
    points = trainings = 0
    for task in sorted(tasks):
        measured = _measured(archive.of(scale, task, None, statement.stage), statement)
        known = sum(map(len, measured.values()))
        if statement.unit == "method":
            measured = {method: [tuple(np.mean(found, axis=0))] for method, found in measured.items()}
        if len(measured) > 3 and (found := _transformed(measured)):
            parts.append(found)
            points, trainings = points + sum(map(len, measured.values())), trainings + known
    over = "trainings" if statement.unit == "training" else "means of methods"
    what = f"rank correlation of {statement.x} and {statement.y} over {over} of a task"
    if not parts:
        return Finding(f"{what}: not run", "not run")
    middles, variances, quantiles = zip(*parts, strict=True)
    half = max(quantiles) * math.sqrt(sum(variances)) / len(parts)
    rho, low, high = (math.tanh(np.mean(middles) + shift) for shift in (0, -half, half))
    text = f"{what}: {rho:.2f} [{low:.2f}, {high:.2f}], {points} {over} of {len(parts)} tasks"
    return Finding(text, by_expectation(low, high, statement.between), trainings)


def _transformed(measured: Measured) -> tuple[float, float, float] | None:
    """Fisher's transformation of the correlation of all pairs, its variance, and the quantile for 95 %."""
    whole = _fisher(measured.values())
    if whole is None:
        return None
    if all(len(found) == 1 for found in measured.values()):
        return whole, (1 + math.tanh(whole) ** 2 / 2) / (len(measured) - 3), float(stats.norm.ppf(0.975))
    without = [_fisher(found for name, found in measured.items() if name != method) for method in measured]
    left = np.array([value for value in without if value is not None])
    n = len(left)
    return whole, (n - 1) / n * float(np.sum((left - left.mean()) ** 2)), float(stats.t.ppf(0.975, n - 1))


def _fisher(by_method: Iterable[Sequence[tuple[float, float]]]) -> float | None:
    columns = list(zip(*(pair for found in by_method for pair in found), strict=True))
    if not columns or any(len(set(column)) == 1 for column in columns):
        return None
    return math.atanh(float(np.clip(stats.spearmanr(*columns).statistic, -LARGEST, LARGEST)))


def _measured(runs: Sequence[Run], statement: Correlation) -> Measured:
    """Both measures of every training of a task, by method."""
    found: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for run in runs:
        x, y = (FACTS[name](run) if name in FACTS else run.metrics.get(name) for name in (statement.x, statement.y))
        if run.status == "ok" and x is not None and y is not None and not run.private_overrides:
            found[run.method][run.train_id] = x, y
    return {method: list(trainings.values()) for method, trainings in found.items()}


def matching(archive: Archive, scale: str, statement: Matching) -> Finding:
    """What weight matching changes, over all pairs of pretrainings."""
    found = archive.pretrainings if scale == statement.scale else []
    changes = []
    for result in found:
        pairs = [name.partition("/")[2] for name in result if name.startswith("straight/")]
        ways = ("permuted", "straight")
        values = [[float(result[f"{way}/{pair}"][statement.measure]) for way in ways] for pair in pairs]
        changes += [matched - straight for matched, straight in values]
    what = f"{statement.measure} of two pretrainings after weight matching minus that before"
    if not changes:
        return Finding(f"{what}: not run", "not run")
    middle, low, high = mean_interval(changes)
    bounds = (0.0, math.inf) if statement.expect == "higher" else (-math.inf, 0.0)
    text = f"{what}: {interval_text(middle, low, high, 1)} over {len(changes)} pairs of {len(found)} models"
    return Finding(text, by_expectation(low, high, bounds))
