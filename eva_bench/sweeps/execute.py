"""Sweeps: `run.py suite=<name>` and `run.py -m ...`; cells run here, in several processes, or by a Hydra launcher.

The planner composes all cells first, so that a mistake in any of them stops the sweep before its first cell. The
truth about a sweep is in its records: running the same command again does what is left.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from eva_bench.records.store import Store
from eva_bench.run.console import untuned
from eva_bench.run.ranks import cells_of_main
from eva_bench.settings.explain import explain_hydra_error
from eva_bench.settings.spec import RunSpec
from eva_bench.sweeps.plan import Cell, Plan, make_plan, read_yaml
from eva_bench.sweeps.remaining import Remaining, duration
from eva_bench.sweeps.status import CellState, count, examine, show, show_means, show_plan
from eva_bench.sweeps.worker import Part, run_cells, write_cells
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from eva_bench.system.files import check_writable, sha256_of
from eva_bench.system.paths import CONF, ROOT, is_group
from eva_bench.system.processes import is_main_process
from eva_bench.system.progress import say

LAUNCHER = "hydra/launcher"
SWEEP_SETTINGS = ("hydra", "pack", "array_size")  # sections of conf/sweep.yaml that the command line may change


@dataclass(frozen=True)
class Request:
    """A sweep's command line, sorted: which suite, what the cells are, and how they are spread."""

    suite: str | None
    cells: list[str]
    spread: list[str]
    dry_run: bool = False

    @property
    def launcher(self) -> str:
        """`here`, `local`, or the name of a Hydra launcher."""
        chosen = [item.split("=", 1)[1] for item in self.spread if item.startswith(f"{LAUNCHER}=")]
        return chosen[-1] if chosen else "here"


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for several cells (a suite, a group of tasks), or for a launcher elsewhere."""
    flags = {"-m", "--multirun"} & set(arguments)
    groups = [item for item in arguments if item.startswith("task=") and is_group(item.removeprefix("task="))]
    return bool(flags or groups) or any(item.split("=")[0] in ("suite", "dry_run", LAUNCHER) for item in arguments)


def read_request(arguments: Sequence[str]) -> Request:
    """Sort a command line. Raises UserError for options that a sweep does not know."""
    suite, dry_run = None, False
    cells: list[str] = []
    spread: list[str] = []
    for item in arguments:
        key, _, value = item.partition("=")
        if item in ("-m", "--multirun"):
            continue
        if item.startswith("-"):
            raise UserError(f"A sweep has no option '{item}'.")
        if key == "suite":
            suite = value
        elif key == "dry_run":
            dry_run = _flag(item, value)
        elif key.replace("/", ".").split(".")[0] in SWEEP_SETTINGS:
            spread.append(item)
        else:
            cells.append(item)
    return Request(suite, cells, spread, dry_run)


def _flag(item: str, value: str) -> bool:
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError as error:
        raise UserError(f"'{item}' is neither true nor false.") from error


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
    folder = Path(states[0].cell.spec.where.results_dir) / "records"
    line = f"{len(specs)} of {len(states)} cells were computed now"
    if known:
        line += f", {len(known)} come from the records in {folder}; force=true runs them all the same"
    return f"{line}. Tables: make tables."


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


def run_locally(folder: Path, specs: list[RunSpec], processes: int) -> int:
    """Several processes over one list of cells: each takes the next one that nobody has claimed."""
    processes = min(processes, len(specs))
    threads = specs[0].where.threads or os.cpu_count() or 1
    threads = max(1, threads // processes)
    file = folder / f"cells-local-{os.getpid()}.jsonl"
    write_cells(file, [_elsewhere(spec, threads) for spec in specs])
    command = [sys.executable, "-m", "eva_bench.sweeps.worker", str(file)]
    children = []
    for number in range(processes):
        log = (folder / f"process-{number}.log").open("a")  # another sweep may be writing there
        say(f"process {number}: {threads} threads, output in {log.name}")
        # A session of its own: a Ctrl-C reaches it once, through us, and it ends with a checkpoint and a record.
        child = subprocess.Popen(
            command, stdout=log, stderr=log, env=worker_environment(number), start_new_session=True
        )
        children.append(child)
    with _forwarding(children):
        codes = [child.wait() for child in children]
    file.unlink(missing_ok=True)
    return max(abs(code) for code in codes)


def _elsewhere(spec: RunSpec, threads: int) -> RunSpec:
    """The same run in a process beside others, which takes only what nobody else has claimed."""
    return spec.model_copy(update={"where": spec.where.model_copy(update={"threads": threads, "wait": False})})


def worker_environment(number: int = 0) -> dict[str, str]:
    """The package can be imported from anywhere; where several GPUs are visible, each process gets its own."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    if len(devices := visible_devices()) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return environment


def visible_devices(folder: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all there are. No torch here."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in named.split(",") if device]
    nodes = [path for path in folder.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return [str(number) for number in range(len(nodes))]


@contextmanager
def _forwarding(children: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Signals to us go to all children, which end in their own time."""

    def forward(number, frame) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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


@contextmanager
def announced(plan: Plan, specs: Sequence[RunSpec], every_s: float = 1.0) -> Iterator[None]:
    """One line for every record that other processes write meanwhile, with the time that is left of these cells."""
    done = threading.Event()
    watcher = threading.Thread(target=_announce, args=(plan.cells, Remaining(specs), done, every_s), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _announce(cells: Sequence[Cell], remaining: Remaining, done: threading.Event, every_s: float) -> None:
    store = Store(cells[0].spec.where.results_dir)
    seen = {cell.run_id: _written(store, cell) for cell in cells}
    finished, planned = 0, len(remaining.expected_s)
    while True:
        last = done.wait(every_s)
        for cell in cells:
            if (written := _written(store, cell)) != seen[cell.run_id]:
                seen[cell.run_id] = written
                if (record := store.read(cell.spec)) is not None:
                    finished += 1
                    score = record.score
                    shown = "" if score is None else f", {record.spec.task.primary} {100 * score:.1f} %"
                    remaining.finish(cell.run_id)
                    left = remaining.seconds_left()
                    shown += "" if left is None else f"; about {duration(left)} left"
                    say(f"[{finished} of {planned}] {record.status}: {cell.run_id}{shown}")
        if last:
            return


def _written(store: Store, cell: Cell) -> int | None:
    with contextlib.suppress(OSError):
        return store.path(cell.spec).stat().st_mtime_ns
    return None
