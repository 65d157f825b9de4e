"""Verdicts on claims from the records. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.claims.finding import Finding, Verdict, columns_of, interval_text, wanted_columns
from eva_bench.reporting.claims.relations import best_rate, correlation, matching
from eva_bench.reporting.claims.spec import BestRate, Claim, Compare, Correlation, Matching, Side, Tie
from eva_bench.reporting.statistics import LOGIT, PLAIN, Difference, Model, Score
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.spec import read_table
from eva_bench.system.paths import CONF


def judge(claim: Claim, archive: Archive, scale: str) -> tuple[Verdict, list[Finding]]:
    """The verdict on a claim at a scale, and what each of its statements gives.

    All statements confirmed: confirmed. One contradicted: contradicted. One not run: not run. Else undecided.
    """
    if claim.needs:
        return "not run", [Finding(claim.needs, "not run")]
    asked = [statement for statement in claim.statements if not statement.scales or scale in statement.scales]
    findings = [_judge_statement(archive, scale, statement) for statement in asked]
    return overall(finding.verdict for finding in findings) if findings else "not run", findings


def _judge_statement(archive: Archive, scale: str, statement: Any) -> Finding:
    """What the records say about a statement; tasks that do not tell methods apart say nothing."""
    table = read_table(CONF / "table" / "overall.yaml")
    if not columns_of(archive, table, scale, statement, None) and (
        apart := wanted_columns(archive, table, scale, statement)
    ):
        return Finding(f"{', '.join(column.title for column in apart)}: no task that tells methods apart", "undecided")
    return EVALUATE[type(statement)](archive, scale, statement)


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole from the verdicts on its parts."""
    found = set(verdicts)
    worst: tuple[Verdict, ...] = ("contradicted", "not run", "undecided")
    return next((verdict for verdict in worst if verdict in found), "confirmed")


def difference_verdict(found: Difference, expect: str, margin: float) -> Verdict:
    """`higher` and `lower` are contradicted by the opposite and by equivalence, `equal` by a difference."""
    found = replace(found, margin=margin)
    if found.verdict == "undecided" or found.low is None:
        return "undecided"
    direction = "equal" if found.verdict == "equivalent" else "higher" if found.low > 0 else "lower"
    return "confirmed" if direction == expect else "contradicted"


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
    text = f"{what}: {interval_text(found.estimate, found.low, found.high, factor)}{unit}"
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
    shown = interval_text(widest.estimate, widest.low, widest.high, 100)
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
    columns = columns_of(archive, table, scale, where, measure)
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


EVALUATE: dict[type, Callable[[Archive, str, Any], Finding]] = {
    Compare: _compare,
    Tie: _tie,
    BestRate: best_rate,
    Correlation: correlation,
    Matching: matching,
}
