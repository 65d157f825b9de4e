"""Statements that are no comparison of scores: best rates, correlations, pretrainings. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy import stats

from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.claims.finding import Finding, by_expectation, columns_of, interval_text, mean_interval
from eva_bench.reporting.claims.spec import BestRate, Correlation, Matching
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.selection import belongs
from eva_bench.reporting.tables.spec import read_table
from eva_bench.system.paths import CONF

RATE = "train.lr"
LARGEST = 0.9999  # correlation that Fisher's transformation is given


def best_rate(archive: Archive, scale: str, statement: BestRate) -> Finding:
    """The ratio of two methods' best learning rates, by the validation loss of every task and seed."""
    sides = [statement.ours.row, statement.theirs.row]
    table = read_table(CONF / "table" / "overall.yaml")
    tasks = dict.fromkeys(column.task for column in columns_of(archive, table, scale, statement, None))
    ratios, trainings, edges = [], 0, 0
    for task in tasks:
        runs = archive.of(scale, task, None, statement.stage)
        best = [_best_rates([run for run in runs if belongs(run, row, {RATE})]) for row in sides]
        for seed in sorted(set(best[0]) & set(best[1])):
            ratios.append(math.log(best[0][seed][0] / best[1][seed][0]))
            trainings += best[0][seed][2] + best[1][seed][2]
            edges += best[0][seed][1] or best[1][seed][1]
    what = f"best learning rate of {sides[0].title} over that of {sides[1].title}"
    if not ratios:
        return Finding(f"{what}: not run", "not run")
    middle, low, high = mean_interval(ratios)
    between = tuple(
        default if end is None else end for end, default in zip(statement.between, (0.0, math.inf), strict=True)
    )
    ends = (None, None) if low is None or high is None else (math.exp(low), math.exp(high))
    text = f"{what}: {math.exp(middle):.2g}" + ("" if ends[0] is None else f" [{ends[0]:.2g}, {ends[1]:.2g}]")
    text += f" over {len(ratios)} pairs of task and seed"
    if edges:
        text += f", {edges} of them with an optimum at the grid's edge"
    return Finding(text, by_expectation(*ends, between), trainings)


def _best_rates(runs: Sequence[Run]) -> dict[int, tuple[float, bool, int]]:
    """Seed -> (best rate, whether it is at the edge of the grid, number of runs); grids of at least three rates."""
    losses: dict[int, dict[float, float]] = defaultdict(dict)
    for run in runs:
        if run.status in ("ok", "failed") and run.lr is not None:
            loss = run.metrics.get("reference_loss", -run.metrics[run.primary]) if run.status == "ok" else math.inf
            losses[run.seed][run.lr] = loss if math.isfinite(loss) else math.inf
    found = {}
    for seed, by_rate in losses.items():
        best = min(sorted(by_rate), key=by_rate.__getitem__)
        if len(by_rate) > 2 and math.isfinite(by_rate[best]):
            found[seed] = best, best in (min(by_rate), max(by_rate)), len(by_rate)
    return found


def correlation(archive: Archive, scale: str, statement: Correlation) -> Finding:
    """Ranks are taken within each task; the tasks' correlations are averaged by Fisher's transformation."""
    table = read_table(CONF / "table" / "overall.yaml")
    tasks = {column.task for column in columns_of(archive, table, scale, statement, None)}
    transformed, variances, points, trainings = [], [], 0, 0
    for task in sorted(tasks):
        measured = _measured(archive.of(scale, task, None, statement.stage), statement)
        pairs = [pair for found in measured.values() for pair in found]
        known = len(pairs)
        if statement.unit == "method":
            pairs = [tuple(np.mean(found, axis=0)) for found in measured.values()]
        columns = list(zip(*pairs, strict=True))
        if len(pairs) < 4 or any(len(set(column)) == 1 for column in columns):
            continue
        rho = float(np.clip(stats.spearmanr(*columns).statistic, -LARGEST, LARGEST))
        transformed.append(math.atanh(rho))
        variances.append((1 + rho**2 / 2) / (len(pairs) - 3))  # Bonett and Wright, Psychometrika 65 (2000)
        points, trainings = points + len(pairs), trainings + known
    over = "trainings" if statement.unit == "training" else "means of methods"
    what = f"rank correlation of {statement.x} and {statement.y} over {over} of a task"
    if not transformed:
        return Finding(f"{what}: not run", "not run")
    middle, half = float(np.mean(transformed)), 1.96 * math.sqrt(sum(variances)) / len(variances)
    rho, low, high = (math.tanh(value) for value in (middle, middle - half, middle + half))
    text = f"{what}: {rho:.2f} [{low:.2f}, {high:.2f}], {points} {over} of {len(variances)} tasks"
    return Finding(text, by_expectation(low, high, statement.between), trainings)


def _measured(runs: Sequence[Run], statement: Correlation) -> dict[str, list[tuple[float, float]]]:
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
