"""One cell from command line to record: reuse, claim, run, and a record whatever happens."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path

from eva_bench.records.environment import code_version, hardware, package_versions
from eva_bench.records.record import Record
from eva_bench.records.store import Busy, Store
from eva_bench.run.console import comparison, introduction, summary
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import NonFiniteLoss, UserError
from eva_bench.system.processes import is_main_process
from eva_bench.system.progress import say, warn
from eva_bench.system.signals import Interrupted, StopSignal

EXIT_CODES = {"ok": 0, "skipped": 0, "failed": 1, "interrupted": 130}


def run_cell(spec: RunSpec, stop: StopSignal | None = None) -> int:
    """Run one specification, unless it is done already; returns the exit code.

    Args:
        stop: of the sweep that this cell belongs to; a single run listens to signals by itself. For a sweep the
            record alone says that a cell is done; somebody who asks for one run also wants its adapter here.

    Raises:
        UserError: the specification cannot work; nothing was recorded.
    """
    say(introduction(spec))
    store = Store(spec.options["results_dir"])
    store.check_writable()
    if _is_done(store, spec, stop is None):
        return 0
    if not is_main_process():
        return _run_claimed(spec, store, stop)  # the main process holds the claim for all
    try:
        with store.claim(spec.run_id, spec.options["wait"], lambda: say("waiting: another process runs this cell")):
            if _is_done(store, spec, stop is None):  # finished by the process we waited for
                return 0
            return _run_claimed(spec, store, stop)
    except Busy:
        say("another process runs this cell; left to it (wait=false)")
        return 0


def _is_done(store: Store, spec: RunSpec, need_adapter: bool) -> bool:
    record = store.read(spec.run_id)
    if record is None or record.status != "ok" or spec.options["force"]:
        return False
    folder = Path(spec.options["runs_dir"]) / spec.run_id
    if need_adapter and not any((folder / name).is_dir() for name in ("adapter", "model")):
        say("recorded before, but the adapter is not here: the run is made again and compared with its record")
        return False
    say("already done: nothing is computed again (force=true runs it anew)")
    say(summary(record, spec, store.path(spec.run_id)))
    return True


def _run_claimed(spec: RunSpec, store: Store, stop: StopSignal | None) -> int:
    _offline()
    from eva_bench.run import pipeline  # imports torch
    from eva_bench.run.prepare import prepare

    with StopSignal() if stop is None else nullcontext(stop) as stop:
        run, status, error = None, "ok", None
        try:
            run = prepare(spec, stop, store)
            pipeline.execute(run)
        except UserError:
            raise
        except Interrupted as reason:
            status, error = "interrupted", f"interrupted {reason}"
        except NonFiniteLoss as reason:
            status, error = "failed", str(reason)
        except Exception as reason:
            status, error = "failed", f"{type(reason).__name__}: {reason}"
            _keep_traceback(spec)
        if not is_main_process():
            return EXIT_CODES[status]
        stop.deferred = True  # from here on it takes a moment only
        code = _keep(spec, store, run, status, error)
        stop.deferred = False
    return code


def _keep(spec: RunSpec, store: Store, run, status: str, error: str | None) -> int:
    """Record, W&B, summary; the exit code."""
    facts, costs = (run.facts, run.meter.phases) if run else ({}, {})
    record = make_record(spec, status, error, facts, costs)
    known = store.read(spec.run_id)
    try:
        if known is not None and known.status == record.status == "ok" and not spec.options["force"]:
            path = store.path(spec.run_id)  # a repetition: the first record stays
            say(comparison(known, record))
        else:
            path = store.write(record)
    except OSError as reason:
        warn(f"the record of {spec.run_id} ({status}) cannot be written: {reason.strerror}. Nothing else is lost: the same command continues")
        return EXIT_CODES["failed"]
    if run:
        run.tracker.finish(record)
    say(summary(record, spec, path, run.tracker.where if run else None))
    return EXIT_CODES[status]


def make_record(spec: RunSpec, status: str, error: str | None, facts: dict, costs: dict) -> Record:
    """The record of a run as far as it came."""
    v = spec.values
    return Record(
        run_id=spec.run_id,
        train_id=spec.train_id,
        init_id=spec.init_id,
        status=status,
        scale=v["scale"]["name"],
        task=v["task"]["name"],
        method=v["method"]["name"],
        seed=v["seed"],
        spec=v,
        origins=spec.origins,
        costs=costs,
        code=code_version(),
        packages=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        error=_without_paths(error),
        **facts,
    )


def _without_paths(error: str | None) -> str | None:
    """Error texts often quote absolute paths; records never do."""
    if error is None:
        return None
    for secret, shown in ((str(Path.cwd()), "."), (str(Path.home()), "~")):
        error = error.replace(secret, shown)
    return error[:2000]


def _keep_traceback(spec: RunSpec) -> None:
    text = traceback.format_exc()
    print(text, file=sys.stderr)
    folder = Path(spec.options["runs_dir"]) / spec.run_id
    with suppress(OSError):  # it may be the full disk that we report
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(text)


def _offline() -> None:
    """A run never downloads by surprise: what is missing is named, with the command that gets it."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars would tear ours apart
