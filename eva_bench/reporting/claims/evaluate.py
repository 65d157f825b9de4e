"""Verdicts on claims from the records. No torch here."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.claims.spec import BestRate, Claim, Compare, Correlation, Side, Tie
from eva_bench.reporting.statistics import LOGIT, PLAIN, Difference, Model, Score
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.selection import belongs, judged_tasks, select
from eva_bench.reporting.tables.spec import Column, TableSpec, read_table
from eva_bench.system.paths import CONF

Verdict = Literal["confirmed", "contradicted", "undecided", "not run"]
RATE = "train.lr"


@dataclass(frozen=True)
class Finding:
    """What the records say about one statement, or the whole claim, at one scale."""

    text: str
    verdict: Verdict
    trainings: int = 0


def judge(claim: Claim, archive: Archive, scale: str) -> tuple[Verdict, list[Finding]]:
    """The verdict on a claim at a scale, and what each of its statements gives.

    All statements confirmed: confirmed. One contradicted: contradicted. One not run: not run. Else undecided.
    """
    if claim.needs:
        return "not run", [Finding(claim.needs, "not run")]
    findings = [_judge_statement(archive, scale, statement) for statement in claim.statements]
    return overall(finding.verdict for finding in findings), findings


def _judge_statement(archive: Archive, scale: str, statement: Any) -> Finding:
    """What the records say about a statement; tasks that do not tell methods apart say nothing."""
    table = read_table(CONF / "table" / "overall.yaml")
    if not _columns(archive, table, scale, statement, None) and (apart := _wanted(archive, table, scale, statement)):
        return Finding(f"{', '.join(column.title for column in apart)}: no task that tells methods apart", "undecided")
    return EVALUATE[type(statement)](archive, scale, statement)


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole from the verdicts on its parts."""
    found = set(verdicts)
    worst: tuple[Verdict, ...] = ("contradicted", "not run", "undecided")
    return next((verdict for verdict in worst if verdict in found), "confirmed")


def by_expectation(low: float | None, high: float | None, bounds: tuple[float, float]) -> Verdict:
    """Confirmed if the interval lies within the bounds, contradicted if wholly outside of them."""
    if low is None or high is None or not math.isfinite(low + high):
        return "undecided"
    if bounds[0] <= low and high <= bounds[1]:
        return "confirmed"
    return "contradicted" if high < bounds[0] or low > bounds[1] else "undecided"


def difference_verdict(found: Difference, expect: str, margin: float) -> Verdict:
    """`higher` and `lower` are contradicted by the opposite and by equality, `equal` by a difference beyond chance."""
    if found.low is None or found.high is None:
        return "undecided"
    within = -margin <= found.low and found.high <= margin
    if expect == "equal":
        return "confirmed" if within else "contradicted" if found.low > 0 or found.high < 0 else "undecided"
    low, high = (found.low, found.high) if expect == "higher" else (-found.high, -found.low)
    return "confirmed" if low > 0 else "contradicted" if high < 0 or within else "undecided"


def _compare(archive: Archive, scale: str, statement: Compare) -> Finding:
    sides = [statement.ours, statement.theirs]
    ours, theirs = (side.row.title for side in sides)
    words = {"higher": "above", "lower": "below", "equal": "equal to"}
    what = f"{statement.measure or 'score'} of {ours} {words[statement.expect]} that of {theirs}"
    scores = _scores(archive, scale, statement, sides, statement.measure)
    link = LOGIT if statement.measure is None else PLAIN
    margin = statement.margin if statement.measure is None else 0.0
    found = Model(scores, link, margin).difference(ours, theirs) if scores else None
    if found is None:
        return Finding(f"{what}: not run", "not run")
    verdict = difference_verdict(found, statement.expect, margin)
    factor, unit = (100, " points") if statement.measure is None else (1, "")
    text = f"{what}: {_interval(found.estimate, found.low, found.high, factor)}{unit}"
    if verdict == "undecided" and found.seeds:
        text += f", about {found.seeds} seeds would decide"
    return Finding(text, verdict, len({(s.method, s.training) for s in scores if s.method in (ours, theirs)}))


def _tie(archive: Archive, scale: str, statement: Tie) -> Finding:
    sides = [Side(method=method) for method in statement.methods]
    scores = _scores(archive, scale, statement, sides, None)
    pairs = list(itertools.combinations(statement.methods, 2))
    model = Model(scores) if scores else None
    if model is None:
        return Finding(f"all of {', '.join(statement.methods)} equal: not run", "not run")
    verdicts = [_pair_verdict(model, pair, len(pairs), statement.margin) for pair in pairs]
    found = [difference for pair in pairs if (difference := model.difference(*pair))]
    widest = max(found, key=lambda difference: abs(difference.estimate))
    shown = _interval(widest.estimate, widest.low, widest.high, 100)
    text = (
        f"{len(pairs)} pairs of {', '.join(statement.methods)}: {verdicts.count('confirmed')} equivalent, "
        f"{verdicts.count('contradicted')} different (after Bonferroni's correction), {verdicts.count('undecided')} "
        f"undecided; the largest difference is {widest.ours} minus {widest.theirs}, {shown} points"
    )
    trainings = {(s.method, s.training) for s in scores if s.method in statement.methods}
    return Finding(text, overall(verdicts), len(trainings))


def _pair_verdict(model: Model, pair: tuple[str, str], pairs: int, margin: float) -> Verdict:
    """All pairs have to be equivalent, so that no correction is due; one difference contradicts, so that one is."""
    found = model.difference(*pair)
    strict = model.difference(*pair, confidence=1 - 0.05 / pairs)
    if found is None or strict is None:
        return "not run"
    verdict = difference_verdict(found, "equal", margin)
    return difference_verdict(strict, "equal", margin) if verdict == "contradicted" else verdict


def _scores(archive: Archive, scale: str, where: Any, sides: Sequence[Side], measure: str | None) -> list[Score]:
    """Scores of all methods that have every task, so that they share in telling how much trainings differ.

    Empty where a side lacks a task.
    """
    table = read_table(CONF / "table" / "overall.yaml")
    columns = _columns(archive, table, scale, where, measure)
    own = [side.row for side in sides if side.settings or side.method not in table.methods]
    methods = table.methods if where.stage == "final" else []
    if where.stage != "final":
        own = [side.row for side in sides]
    changes = {
        "columns": columns,
        "methods": methods,
        "more_rows": own,
        "stage": where.stage,
        "best_rate": getattr(where, "best_rate", False),
        "means": [],
        "further": False,
    }
    selection = select(archive, table.model_copy(update=changes), scale, None)
    complete = [row for row in selection.table.rows if all(selection.scores(row, column) for column in columns)]
    if not columns or not {side.row.title for side in sides} <= {row.title for row in complete}:
        return []
    titles = {row.title for row in complete}
    scores = [score for score in selection.statistics_scores(columns) if score.method in titles]
    if measure is None:
        return scores
    return list({(score.method, score.training): score for score in reversed(scores)}.values())  # of a training, once


def _wanted(archive: Archive, table: TableSpec, scale: str, where: Any) -> list[Column]:
    """The columns of the tasks and families that a statement is about."""
    families = {run.task: run.family for run in archive.runs if run.scale == scale}
    return [
        column
        for column in table.columns
        if (not where.families or families.get(column.task) in where.families)
        and (not where.tasks or column.task in where.tasks)
    ]


def _columns(archive: Archive, table: TableSpec, scale: str, where: Any, measure: str | None) -> list[Column]:
    """Of these the columns whose tasks tell methods apart, or (with a measure) one column of it per task."""
    judged = judged_tasks(archive, scale)
    wanted = [
        column
        for column in _wanted(archive, table, scale, where)
        if column.key not in judged or judged[column.key].mark is None
    ]
    if measure is None:
        return wanted
    kind = "fact" if measure in FACTS else "metric"
    tasks = dict.fromkeys(column.task for column in wanted)
    return [
        Column(task=task, title=task, best="min", unit="number", optional=True, **{kind: measure}) for task in tasks
    ]


def _best_rate(archive: Archive, scale: str, statement: BestRate) -> Finding:
    sides = [statement.ours.row, statement.theirs.row]
    table = read_table(CONF / "table" / "overall.yaml")
    tasks = dict.fromkeys(column.task for column in _columns(archive, table, scale, statement, None))
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


def _correlation(archive: Archive, scale: str, statement: Correlation) -> Finding:
    table = read_table(CONF / "table" / "overall.yaml")
    tasks = {column.task for column in _columns(archive, table, scale, statement, None)}
    pairs = {}
    for run in (run for task in sorted(tasks) for run in archive.of(scale, task, None, statement.stage)):
        x, y = (FACTS[name](run) if name in FACTS else run.metrics.get(name) for name in (statement.x, statement.y))
        if run.status == "ok" and x is not None and y is not None and not run.private_overrides:
            pairs[run.train_id] = x, y
    what = f"rank correlation of {statement.x} and {statement.y} over trainings"
    if len(pairs) < 4:
        return Finding(f"{what}: not run", "not run")
    rho = float(stats.spearmanr(*zip(*pairs.values(), strict=True)).statistic)
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (len(pairs) - 3))  # Bonett and Wright, Psychometrika 65 (2000)
    low, high = np.tanh([np.arctanh(rho) - half, np.arctanh(rho) + half])
    verdict = by_expectation(float(low), float(high), statement.between)
    return Finding(f"{what}: {rho:.2f} [{low:.2f}, {high:.2f}]", verdict, len(pairs))


EVALUATE: dict[type, Callable[[Archive, str, Any], Finding]] = {
    Compare: _compare,
    Tie: _tie,
    BestRate: _best_rate,
    Correlation: _correlation,
}


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean and 95 % t interval; without interval for one value."""
    middle = float(np.mean(values))
    if len(values) < 2:
        return middle, None, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return middle, middle - half, middle + half


def _interval(estimate: float, low: float | None, high: float | None, factor: float) -> str:
    text = f"{factor * estimate:+.3g}" if factor == 1 else f"{factor * estimate:+.1f}"
    if low is None or high is None:
        return f"{text} (one seed: no interval)"
    ends = [f"{factor * end:+.3g}" if factor == 1 else f"{factor * end:+.1f}" for end in (low, high)]
    return f"{text} [{ends[0]}, {ends[1]}]"
