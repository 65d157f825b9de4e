"""Sweeps: `run.py suite=<name>` and `run.py -m ...`; cells run here, in several processes, or by a Hydra launcher.

The planner composes all cells first, so that a mistake in any of them stops the sweep before its first cell. The
truth about a sweep is in its records: running the same command again does what is left.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from eva_bench.records.store import Store
from eva_bench.run.console import untuned
from eva_bench.run.ranks import cells_of_main
from eva_bench.settings.explain import explain_hydra_error
from eva_bench.settings.spec import RunSpec
from eva_bench.sweeps.announce import announced
from eva_bench.sweeps.local import run_locally, worker_environment
from eva_bench.sweeps.plan import Plan, make_plan, read_yaml
from eva_bench.sweeps.remaining import Remaining
from eva_bench.sweeps.request import Request, read_request
from eva_bench.sweeps.status import CellState, count, examine, show, show_means, show_plan
from eva_bench.sweeps.worker import Part, run_cells, write_cells
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from eva_bench.system.files import check_writable, sha256_of
from eva_bench.system.paths import CONF
from eva_bench.system.processes import is_main_process
from eva_bench.system.progress import say


def main(arguments: Sequence[str]) -> int:
    """Plan, run what is left, and say how it stands.

    Returns:
        0 if every planned cell has an ok record, 130 if the sweep was interrupted, otherwise 1 (2: a cell cannot run).

    Raises:
        UserError: a mistake in the suite or in any cell; nothing was run.
    """
    request = read_request(arguments)
    plan = make_plan(request.suite, request.cells)
    states = examine(plan)
    if request.dry_run:
        show_plan(plan.name, states)
        return 0
    config = spread_config(request, plan)
    wanted = cells_of_main([spec.run_id for spec in left_to_do(states)])
    specs = [cell.spec for cell in plan.cells if cell.run_id in wanted]
    say(f"{plan.name}: {count(states)}; {len(specs)} to run")
    for spec in {spec.method.name: spec for spec in specs if untuned(spec)}.values():
        say(f"{spec.method.name} has no tuned values for {spec.task.name}: train.lr={spec.train.lr:g} is the recipe's")
    for where in {(spec.where.results_dir, spec.where.runs_dir) for spec in specs}:
        Store(where[0]).check_writable()
        check_writable(Path(where[1]), "runs")
    code = _run(request, plan, specs, config) if specs else 0
    if not is_main_process():
        return code  # the main one may still be writing the last record
    states = examine(plan)
    show(plan.name, states)
    show_means(states)
    if code == 130:
        say("Interrupted: the same command continues where this one stopped.")
        return code
    say(_what_was_computed(states, specs))
    return 0 if all(item.state in ("ok", "suspicious") for item in states) else code or 1


def _what_was_computed(states: Sequence[CellState], specs: Sequence[RunSpec]) -> str:
    """Where the scores above come from, and how to have them computed all the same."""
    computed = {spec.run_id for spec in specs}
    known = [item for item in states if item.state in ("ok", "suspicious") and item.cell.run_id not in computed]
    results = states[0].cell.spec.where.results_dir
    line = f"{len(specs)} of {len(states)} cells were computed now"
    if known:
        line += f", {len(known)} from the records in {Path(results) / 'records'}; force=true runs them all the same"
    elsewhere = "" if Path(results) == Path("results") else f' ARGS="results_dir={results}"'
    return f"{line}. Tables: make tables{elsewhere}."


def left_to_do(states: Sequence[CellState]) -> list[RunSpec]:
    """The cells without an ok record; all of them with force=true."""
    done = ("ok", "suspicious")
    return [item.cell.spec for item in states if item.state not in done or item.cell.spec.where.force]


def spread_config(request: Request, plan: Plan) -> DictConfig:
    """conf/sweep.yaml with the launcher, this site's values and the command line's changes. Raises UserError."""
    overrides = [*spread_overrides(request), f"logs={_quoted(_folder(plan) / 'logs')}"]
    try:
        with initialize_config_dir(str(paths.CONF), version_base="1.3"):
            config = compose("sweep", overrides, return_hydra_config=True)
    except Exception as error:
        raise UserError(explain_hydra_error(error, overrides)) from error
    if not isinstance(config.pack, DictConfig):
        raise UserError(f"pack={config.pack} names no scale: pack.pocket={config.pack}, for instance.")
    packs = [f"pack.{scale}" for scale in config.pack]
    _check_positive(
        config, ["array_size", *packs, *(["hydra.launcher.processes"] if request.launcher == "local" else [])]
    )
    return config


def _check_positive(config: DictConfig, names: Sequence[str]) -> None:
    for name in names:
        value = OmegaConf.select(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name}={value} must be a whole number greater than 0.")


def spread_overrides(request: Request) -> list[str]:
    """The values of conf/site.yaml, if there is one, and then the command line, which wins."""
    site = paths.CONF / "site.yaml"
    values = read_yaml(site) if site.is_file() else {}
    launcher = values.pop("launcher", None) or {}
    if not isinstance(launcher, dict):
        raise UserError(f"{site.name}: launcher has no settings below it.")
    given = [
        f"hydra.launcher.{key}={json.dumps(value)}" for key, value in launcher.items() if request.launcher == "slurm"
    ]
    return [*given, *(f"{key}={json.dumps(value)}" for key, value in values.items()), *request.spread]


def _run(request: Request, plan: Plan, specs: list[RunSpec], config: DictConfig) -> int:
    if request.launcher == "here":
        return run_cells(specs)
    if request.launcher == "local":
        say(Remaining(specs).before(config.hydra.launcher.processes))
        with announced(plan, specs):
            return run_locally(_folder(plan), specs, config.hydra.launcher.processes)
    parts = freeze(plan, specs, config)
    with announced(plan, specs):
        return _run_by_hydra(request, parts, _folder(plan) / "logs")


def _folder(plan: Plan) -> Path:
    return Path(plan.cells[0].spec.where.runs_dir) / "sweeps" / plan.name


def freeze(plan: Plan, specs: list[RunSpec], config: DictConfig) -> list[Part]:
    """Write composed cells where jobs find them, `pack` cells to a job: later edits of conf/ do not reach them."""
    text = "".join(spec.to_json() for spec in specs)
    file = _folder(plan) / f"cells-{sha256_of(text)[:10]}.jsonl"
    write_cells(file, specs)
    size = min(max(1, config.pack.get(spec.scale.name, 1)) for spec in specs)
    return [Part(str(file), first, size) for first in range(0, len(specs), size)]


def _run_by_hydra(request: Request, parts: list[Part], logs: Path) -> int:
    """Hydra's multirun over the parts, with the launcher of the command line (slurm, or any that is installed)."""
    os.environ["PYTHONPATH"] = worker_environment()["PYTHONPATH"]  # jobs inherit it
    logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns every second where SLURM keeps no accounts
    firsts = ",".join(str(part.first) for part in parts)
    given = [
        f"cells={_quoted(Path(parts[0].file))}",
        f"logs={_quoted(logs)}",
        f"count={parts[0].count}",
        f"first={firsts}",
    ]
    arguments, sys.argv = sys.argv, ["run.py", "-m", *request.spread, *given]
    say(
        f"{len(parts)} jobs of up to {parts[0].count} cells; output in {logs}. "
        "This command waits for them; `make submit` does not."
    )
    try:
        _job()
    except KeyboardInterrupt:
        say("No longer waiting; jobs that are queued or running go on (squeue, scancel).")
        return 130
    except Exception as error:  # a job that was cancelled, or died: its cells say so in the table
        say(f"A job did not finish: {type(error).__name__}: {str(error).splitlines()[0]}")
        return 1
    finally:
        sys.argv = arguments
    return 0


@hydra.main(config_path=str(CONF), config_name="sweep", version_base="1.3")
def _job(config: DictConfig) -> int:
    """One part of a sweep, in whatever process or job the launcher put it."""
    return Part(config.cells, config.first, config.count)()


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"
