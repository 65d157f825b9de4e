"""Which runs tried the learning rates of a method: those that change nothing but the rate. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean

from eva_bench.reporting.archive import Run
from eva_bench.reporting.rates import Tuned
from eva_bench.reporting.tables.cells import RATE, belongs
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Row

AROUND = (0.5, 1, 2)  # times the rate in use


def tuned_methods(runs: Iterable[Run], rows: Sequence[Row]) -> dict[str, Tuned]:
    """Title of a row -> its grid, from tuning runs of one family and scale that change nothing but the rate."""
    known = [run for run in runs if run.status in ("ok", "failed")]
    found = {row.title: Tuned.of(row.title, [r for r in known if belongs(r, row, {RATE})]) for row in rows}
    return {title: tuned for title, tuned in found.items() if tuned is not None}


def tuned_families(runs: Iterable[Run], scale: str, first: Sequence[str]) -> dict[str, dict[str, Tuned]]:
    """Family -> method -> grid, of every method that was tuned; those of `first` lead."""
    by_family: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.scale == scale:
            by_family[run.family].append(run)
    found = {}
    for family, own in sorted(by_family.items()):
        methods = dict.fromkeys([*first, *sorted({run.method for run in own})])
        found[family] = tuned_methods(own, [Row(title=method, method=method) for method in methods])
    return {family: methods for family, methods in found.items() if methods}


def scores_around(selection: Selection, row: Row) -> list[float | None]:
    """Validation scores at half, at and at twice the rate that a row's runs use, mean over the families of the table.

    None where a rate was not tried in a family, or where the row's runs use several in one.
    """
    used: dict[str, set[float]] = defaultdict(set)
    for run in selection.runs(row):
        used[run.family].add(run.lr)
    found: list[list[float | None]] = []
    tried_here = [r for r in selection.tried if belongs(r, selection.table.row_of_task(row, r.task), {RATE})]
    for family, rates in used.items():
        tried = [run for run in tried_here if run.family == family]
        tuned = Tuned.of(row.title, tried)
        rate = next(iter(rates))
        found.append([tuned.score(times * rate) if tuned and len(rates) == 1 else None for times in AROUND])
    by_factor = list(zip(*found, strict=True))
    return [None if None in scores else mean(s for s in scores if s is not None) for scores in by_factor]
