"""What the page compares at one scale: scores, differences, pairs, measures for trade-offs, rates. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any

from scipy import stats

from eva_bench.reporting import statistics
from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.figures.scores import families_of
from eva_bench.reporting.figures.style import look
from eva_bench.reporting.page.blocks import short
from eva_bench.reporting.page.use import peft_code
from eva_bench.reporting.rates import optima, optima_against
from eva_bench.reporting.statistics import Model
from eva_bench.reporting.statistics.per_task import pooled_deviation
from eva_bench.reporting.tables.cells import select
from eva_bench.reporting.tables.facts import FACTS
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Column, Row, read_table
from eva_bench.reporting.tables.summary import verdict_text
from eva_bench.reporting.tables.tuning import tuned_families
from eva_bench.system.paths import CONF

# Name on the page -> fact; a score is added to them.
MEASURES = {
    "trained parameters": "parameters",
    "initialisation s": "init_seconds",
    "training s": "train_seconds",
    "memory at initialisation, bytes": "init_peak_bytes",
    "training loss, first quarter": "early_loss",
    "learning rate": "learning_rate",
    "forgetting (log ratio of losses)": "forgetting",
    "intruder dimensions": "intruders",
    "turn of singular vectors": "variation",
    "curvature at initialisation": "curvature",
}


def scale_data(archive: Archive, scale: str) -> dict[str, Any] | None:
    """Everything about a scale that the page compares, or None where no benchmark run of it exists."""
    selection = select(archive, read_table(CONF / "table" / "overall.yaml"), scale, None)
    if not selection.used:
        return None
    families = families_of(selection)
    columns = [column for found in families.values() for column in found]
    rows = [row for row in selection.table.rows if selection.measured(row)]
    scores = selection.statistics_scores(columns)
    position = {run.run_id: i for i, run in enumerate(archive.runs)}
    return {
        "name": scale,
        "baseline": selection.table.baseline,
        "families": {family: [column.title for column in found] for family, found in families.items()},
        "tasks": {column.title: column.task for column in columns},
        "methods": {row.title: look(row.method)["color"] for row in rows},
        "scores": {row.title: _cells(selection, row, columns, position) for row in rows},
        "noise": {column.title: _noise(selection, column) for column in columns},
        "pairs": _pairs(Model(scores), [row.title for row in rows], list(families)),
        "means": _means(scores, list(families)),
        "ranks": statistics.mean_ranks(statistics.block_means(scores)),
        "measures": {row.title: _measures(selection, row, families) for row in rows},
        "apart": {c.title: selection.judged[c.key].mark for c in columns if not selection.tells(c)},
        "rates": _rates(archive, scale, selection.table.baseline),
        "use": {row.title: _use(selection, row) for row in rows},
    }


def _cells(selection: Selection, row: Row, columns: Sequence[Column], position: dict[str, int]) -> dict[str, Any]:
    """Column -> [seed, score, place of the run in the list] for every training."""
    found = {}
    for column in columns:
        runs = {run.seed: run for run in selection.cells.get((row.title, column.task), [])}
        runs |= {run.seed: run for run in selection.failures.get((row.title, column.task), [])}
        cell = selection.scores(row, column)
        found[column.title] = [[seed, short(cell[seed]), position[runs[seed].run_id]] for seed in sorted(cell)]
    return {title: cell for title, cell in found.items() if cell}


def _noise(selection: Selection, column: Column) -> list[float] | None:
    """Pooled standard deviation of a task, and the t quantile of its degrees of freedom: intervals of any pair."""
    samples = [list(selection.scores(row, column).values()) for row in selection.table.rows]
    deviation, freedom = pooled_deviation([values for values in samples if values])
    return [short(deviation), short(float(stats.t.ppf(0.975, freedom)))] if freedom else None


def _pairs(model: Model, methods: Sequence[str], families: Sequence[str]) -> dict[str, Any]:
    """Family or `all` -> ours -> theirs -> [estimate, low, high, verdict in words]."""
    found: dict[str, Any] = {}
    for name, wanted in {"all": None, **{family: [family] for family in families}}.items():
        by_ours: dict[str, Any] = defaultdict(dict)
        for ours in methods:
            for theirs in methods:
                difference = model.difference(ours, theirs, wanted) if ours != theirs else None
                if difference:
                    numbers = [short(value) for value in (difference.estimate, difference.low, difference.high)]
                    by_ours[ours][theirs] = [*numbers, verdict_text(difference)]
        found[name] = by_ours
    return found


def _means(scores: list[statistics.Score], families: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Family or `all` -> method -> mean, of methods that have every task."""
    groups = {"all": scores} | {family: [s for s in scores if s.family == family] for family in families}
    return {name: {m: short(v) for m, v in statistics.balanced_means(found).items()} for name, found in groups.items()}


def _measures(selection: Selection, row: Row, families: dict[str, list[Column]]) -> dict[str, dict[str, Any]]:
    """Family or `all` -> measure -> mean over runs; what came from a cache has no cost."""
    runs = selection.runs(row)
    groups = {"all": runs} | {family: [run for run in runs if run.family == family] for family in families}
    return {name: _mean_measures(found) for name, found in groups.items()}


def _mean_measures(runs: Sequence[Run]) -> dict[str, Any]:
    found = {name: [v for run in runs if (v := FACTS[fact](run)) is not None] for name, fact in MEASURES.items()}
    return {name: short(mean(values)) for name, values in found.items() if values}


def _rates(archive: Archive, scale: str, baseline: str) -> dict[str, Any]:
    """Family -> method -> points of its curve [rate, score, loss], the choice and how firm it is."""
    overall = read_table(CONF / "table" / "overall.yaml")
    found: dict[str, Any] = {}
    for family, methods in tuned_families(archive.tuning, scale, overall.methods).items():
        best, against = optima(methods), optima_against(methods, baseline)
        found[family] = {
            title: {
                "colour": look(title)["color"],
                "points": [[rate, short(t.scores.get(rate)), _finite(t.curve.mean(rate))] for rate in t.curve.rates],
                "chosen": t.curve.chosen,
                "optimum": [short(end, 3) for end in best[title]],
                "times": [short(end, 3) for end in against[title]] if title in against else None,
                "plateau": t.plateau,
                "moves": short(t.curve.moved(), 3),
                "edge": t.curve.at_edge,
                "runs": len(t.runs),
            }
            for title, t in methods.items()
        }
    return found


def _finite(value: float) -> float | None:
    return short(value) if math.isfinite(value) else None


def _use(selection: Selection, row: Row) -> dict[str, str]:
    """Family -> code for stock PEFT, from the last run of the method."""
    return {run.family: peft_code(run) for run in selection.runs(row)}
