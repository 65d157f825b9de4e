"""`make status`: planned cells against records. Never imports torch."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import ClassVar

from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eva_bench.records.environment import cached_name
from eva_bench.records.record import Record
from eva_bench.records.store import Store, read_record
from eva_bench.settings.spec import Origins
from eva_bench.sweeps.plan import COORDINATES, Cell, Plan, make_plan
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.progress import console, say

STATES = ("ok", "running", "interrupted", "failed", "missing", "stale", "suspicious")
COLORS = {"ok": "green", "running": "cyan", "failed": "red", "suspicious": "red", "missing": "dim"}
DONE = ("ok", "suspicious")  # states with a score
SHOWN = 40  # cells that are listed with their reason


@dataclass(frozen=True)
class CellState:
    """What is known about one planned cell."""

    cell: Cell
    state: str  # one of STATES
    reason: str = ""

    def as_dict(self) -> dict:
        spec = self.cell.spec
        place = {"task": spec.task.name, "method": spec.method.name, "scale": spec.scale.name}
        settings = {"seed": spec.seed, "settings": " ".join(self.cell.settings)}
        return {"run_id": self.cell.run_id, "state": self.state, "reason": self.reason} | place | settings


def examine(plan: Plan) -> list[CellState]:
    """The state of every cell, in the order of the plan."""
    stores: dict[str, Store] = {}
    states = []
    for cell in plan.cells:
        store = stores.setdefault(cell.spec.where.results_dir, Store(cell.spec.where.results_dir))
        states.append(_examine(cell, store))
    return states


def _examine(cell: Cell, store: Store) -> CellState:
    if store.is_running(cell.run_id):
        return CellState(cell, "running")
    record = store.read(cell.spec)
    if record is None:
        if (other := _made_otherwise(cell, store)) is not None:
            return CellState(cell, "stale", f"{other.run_id} was made by other code, settings, model or data")
        unreadable = store.path(cell.spec).exists()
        return CellState(cell, "missing", "its record cannot be read" if unreadable else "")
    if record.status != "ok":
        return CellState(cell, "failed" if record.status == "skipped" else record.status, record.error or "")
    if reason := suspicion(record):
        return CellState(cell, "suspicious", reason)
    return CellState(cell, "ok")


def _made_otherwise(cell: Cell, store: Store) -> Record | None:
    """A record of the same task, method, scale, seed and command line under another fingerprint."""
    prefix = cell.run_id.rpartition("-")[0]
    for path in store.folder(cell.spec).glob(f"{prefix}-*.json"):
        record = read_record(path)
        if record is not None and record.status == "ok" and _chosen(record.origins) == _chosen(cell.spec.origins):
            return record
    return None


def _chosen(origins: Origins) -> set[str]:
    return {item for item in origins.command_line if item.split("=")[0] not in COORDINATES}


def suspicion(record: Record) -> str:
    """Why an ok record should be looked at before it is believed; empty if there is no reason."""
    name, chance = record.spec.task.primary, record.spec.task.chance
    after, before = record.metrics.get(name), record.metrics_before.get(name)
    if after is None or not math.isfinite(after):
        return f"no {name}"
    if before is not None and after < before:
        return f"{name} {after:.3f} is below the untrained model's {before:.3f}"
    if chance is not None and after < chance:
        return f"{name} {after:.3f} is below chance, {chance:.3f}"
    loss, loss_before = record.metrics.get("reference_loss"), record.metrics_before.get("reference_loss")
    if loss is not None and loss_before is not None and not loss <= loss_before:
        return f"the loss on the reference answers rose from {loss_before:.3f} to {loss:.3f}"
    return ""


def needs(cell: Cell) -> str:
    """What a cell that is not done has to compute, and what it finds in the caches."""
    caches = Path(cell.spec.where.runs_dir) / "cache"
    trained = caches / "train" / cached_name(cell.spec.train_id)
    if trained.exists():
        return "evaluation"
    if trained.with_suffix(".checkpoint").exists():
        return "rest of the training, evaluation"
    if (caches / "init" / cached_name(cell.spec.init_id)).exists():
        return "training, evaluation"
    return "initialisation, training, evaluation"


def count(states: Sequence[CellState]) -> str:
    """For instance `21 cells: 20 ok, 1 failed`."""
    found = Counter(item.state for item in states)
    return f"{len(states)} cells: " + ", ".join(f"{found[state]} {state}" for state in STATES if found[state])


def show(name: str, states: Sequence[CellState]) -> None:
    """One row per task, method and settings with the state of every seed, then the reasons of what is not ok."""
    shared, rows = _shared(states), {}
    for item in states:
        spec = item.cell.spec
        key = (spec.scale.name, spec.task.name, spec.method.name, _varying(item, shared))
        rows.setdefault(key, []).append(item)
    table = Table("scale", "task", "method", "settings", "score", "seeds", box=None)
    for key, items in rows.items():
        seeds = ", ".join(_colored(f"{item.cell.spec.seed} {item.state}", item.state) for item in items)
        table.add_row(*key, _score(items), seeds)
    _print(table)
    say(_title(name, shared, states))
    reasons = [item for item in states if item.reason]
    for item in reasons[:SHOWN]:
        say(f"{item.state}: {item.cell.run_id}: {item.reason.splitlines()[0]}")
    if len(reasons) > SHOWN:
        say(f"... and {len(reasons) - SHOWN} more: --json lists all")


def _score(items: Sequence[CellState]) -> str:
    """Mean and, of several seeds, the range of the task's primary metric."""
    records = [Store(item.cell.spec.where.results_dir).read(item.cell.spec) for item in items if item.state in DONE]
    scores = [record.score for record in records if record is not None and record.score is not None]
    if not scores:
        return "–"
    spread = f" ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else ""
    return f"{items[0].cell.spec.task.primary} {mean(scores):.3f}{spread}"


def show_means(states: Sequence[CellState]) -> None:
    """The mean of the primary metrics over the tasks of a family, per method, where there is more than one task."""
    scores: dict[tuple, dict[str, list[float]]] = {}
    for item in states:
        spec = item.cell.spec
        record = Store(spec.where.results_dir).read(spec)
        score = record.score if record is not None and record.status == "ok" else None
        if score is not None:
            key = (spec.scale.name, spec.task.family, spec.method.name, " ".join(item.cell.settings))
            scores.setdefault(key, {}).setdefault(spec.task.name, []).append(score)
    planned = {family: len({i.cell.spec.task.name for i in states if i.cell.spec.task.family == family})
               for family in {item.cell.spec.task.family for item in states}}  # fmt: skip
    for (scale, family, method, settings), by_task in scores.items():
        if planned[family] > 1:
            mean_score = mean(mean(values) for values in by_task.values())
            cell = " ".join(filter(None, (scale, family, method, settings)))
            say(f"{cell}: mean {100 * mean_score:.1f} over {len(by_task)} of {planned[family]} tasks")


def show_plan(name: str, states: Sequence[CellState]) -> None:
    """`dry_run=true`: every planned cell, whether it is done, and what it would compute."""
    table = Table("scale", "task", "method", "settings", "seed", "state", "would compute", box=None)
    shared = _shared(states)
    for item in states:
        spec = item.cell.spec
        place = (spec.scale.name, spec.task.name, spec.method.name, _varying(item, shared))
        work = "nothing" if item.state in ("ok", "suspicious") else needs(item.cell)
        table.add_row(*place, str(spec.seed), _colored(item.state, item.state), work)
    _print(table)
    say(f"{_title(name, shared, states)}. Nothing was run (dry_run=true).")


def _print(table: Table) -> None:
    (console if console.is_terminal else Console(width=200)).print(table)  # a log file has no width of its own


def _shared(states: Sequence[CellState]) -> set[str]:
    """Settings that all cells have: said once, not in every row."""
    sets = [set(item.cell.settings) for item in states]
    return set.intersection(*sets)


def _varying(item: CellState, shared: set[str]) -> str:
    return escape(" ".join(setting for setting in item.cell.settings if setting not in shared))


def _title(name: str, shared: set[str], states: Sequence[CellState]) -> str:
    given = f" with {' '.join(sorted(shared))}" if shared else ""
    return f"{name}{given}: {count(states)}"


def _colored(text: str, state: str) -> str:
    return f"[{COLORS[state]}]{text}[/]" if state in COLORS else text


class StatusArguments(Arguments):
    """Show planned cells against records: done, missing, failed or stale.

    Exit code 0 only if every cell is ok.
    make status SUITE=gsm8k ARGS="scale=lite"
    """

    rest: ClassVar[str] = "settings"

    suite: str = Field(description="suite of conf/suite/")
    as_json: bool = Field(False, alias="json", description="every cell as JSON, for scripts")
    settings: list[str] = Field(default_factory=list, description="settings of the cells, as for run.py")


def report(arguments: StatusArguments) -> int:
    """Print the state of a suite. Raises UserError."""
    plan = make_plan(arguments.suite, arguments.settings)
    states = examine(plan)
    if arguments.as_json:
        print(json.dumps([item.as_dict() for item in states], indent=1))
    else:
        show(plan.name, states)
    return 0 if all(item.state == "ok" for item in states) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.sweeps.status suite=<name> [settings] [--json]`."""
    return run_command(report, StatusArguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
