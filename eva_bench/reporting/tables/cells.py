"""Which records a table shows: per row and task, those that differ in nothing but the seed. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.rates import chosen_rate
from eva_bench.reporting.statistics import Judgement, judge
from eva_bench.reporting.tables.selection import Selection
from eva_bench.reporting.tables.spec import Row, TableSpec, read_table
from eva_bench.system.errors import UserError
from eva_bench.system.paths import CONF

RATE = "train.lr"


def select(archive: Archive, table: TableSpec, scale: str, model: str | None) -> Selection:
    """The runs of every cell. Of several settings the one finished last counts.

    Args:
        archive: all records.
        table: what to show.
        scale: whose records.
        model: whose records, or None for those of every model.

    Returns:
        The runs by row and task.

    Raises:
        UserError: two records with the same settings and the same seed, or a name that no record has.
    """
    selection = _collect(archive, table, scale, model)
    selection.check_names()
    selection.judged = judged_tasks(archive, scale)
    selection.tried = [run for task in selection.table.tasks for run in archive.of(scale, task, model, "tune")]
    return selection


@lru_cache(maxsize=8)
def judged_tasks(archive: Archive, scale: str) -> Mapping[tuple[str, str], Judgement]:
    """What every task of the table of all tasks tells about that table's methods, by the keys of columns.

    A task is judged as soon as all these methods have at least two trainings of it.
    """
    table = read_table(CONF / "table" / "overall.yaml").model_copy(update={"further": False})
    selection = _collect(archive, table, scale, None)
    found = {}
    for column in table.columns:
        samples = [list(selection.scores(row, column).values()) for row in table.rows]
        if min(map(len, samples)) > 1:
            found[column.key] = judge(samples, *selection.bounds(column))
    return found


def _collect(archive: Archive, table: TableSpec, scale: str, model: str | None) -> Selection:
    named, table = table.methods, _with_further_methods(archive, table, scale, model)
    selection = Selection(table, scale, further=set(table.methods) - set(named))
    wanted: dict[tuple[str, str], list[Run]] = {}
    free = {RATE} if table.best_rate else ()
    for task in table.tasks:
        runs = archive.of(scale, task, model, table.stage)
        selection.aside += sum(run.status == "ok" for run in runs)
        for row in table.rows:
            of_task = table.row_of_task(row, task)
            wanted[row.title, task] = [r for r in runs if belongs(r, of_task, free) and r.status in ("ok", "failed")]
    if table.best_rate:
        wanted = _at_best_rates(wanted)
    for key, runs in wanted.items():
        latest = _latest(runs)
        _refuse_doubles(latest)
        if finished := [run for run in latest if run.status == "ok"]:
            selection.cells[key] = finished
        if failed := [run for run in latest if run.status == "failed"]:
            selection.failures[key] = failed
    selection.aside -= len(selection.used)
    return selection


def _at_best_rates(wanted: Mapping[tuple[str, str], list[Run]]) -> dict[tuple[str, str], list[Run]]:
    """Of every row the runs at the rate that the selection takes, over the tasks of a family together."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for (title, _), runs in wanted.items():
        for run in runs:
            groups[title, run.family].append(run)
    rates = {key: chosen for key, runs in groups.items() if (chosen := chosen_rate(runs)) is not None}
    return {
        (title, task): [run for run in runs if run.lr == rates.get((title, run.family))]
        for (title, task), runs in wanted.items()
    }


def _latest(runs: Sequence[Run]) -> list[Run]:
    """Of several settings the runs of the one finished last, sorted by seed; one with scores comes before failures."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.settings_key].append(run)

    def age(found: list[Run]) -> tuple[bool, str]:
        finished = [run for run in found if run.status == "ok"]
        return bool(finished), max(run.finished or "" for run in finished or found)

    return sorted(max(groups.values(), key=age), key=lambda run: run.seed) if groups else []


def _with_further_methods(archive: Archive, table: TableSpec, scale: str, model: str | None) -> TableSpec:
    """The table with a row for every other method that has a score, sorted by name.

    Where averages are over the tasks that tell methods apart, a method needs all of these that the others have:
    otherwise it would be ranked by other tasks than they are.
    """
    if not table.further:
        return table
    tasks: dict[str, set[str]] = defaultdict(set)
    for task in table.tasks:
        for run in archive.of(scale, task, model, table.stage):
            if run.status == "ok" and not run.private_overrides:
                tasks[run.method].add(task)
    needed: set[str] = set()
    if table.telling:
        judged = judged_tasks(archive, scale)
        telling = {
            column.task for column in table.columns if column.key not in judged or judged[column.key].mark is None
        }
        needed = telling & {task for method in table.methods for task in tasks[method]}
    more = sorted(method for method, known in tasks.items() if method not in table.methods and needed <= known)
    return table.model_copy(update={"methods": [*table.methods, *more]})


def belongs(run: Run, row: Row, free: Collection[str] = ()) -> bool:
    """Whether a run is of the row's method and settings, and changes nothing else but what is free."""
    if run.method != row.method:
        return False
    if any(run.setting(key) != value for key, value in row.settings.items()):
        return False
    return not run.private_overrides - set(row.settings) - set(free)


def _refuse_doubles(cell: list[Run]) -> None:
    seeds: dict[int, Run] = {}
    for run in cell:
        if run.seed in seeds:
            raise UserError(
                f"Two records claim one cell: '{seeds[run.seed].run_id}' and '{run.run_id}' have the same settings "
                "and seed; remove one from results/records."
            )
        seeds[run.seed] = run
