"""One cell from command line to record: reuse, claim, run, and a record whatever happens."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from eva_bench.records.environment import code_version, hardware, package_versions
from eva_bench.records.record import Outcome, Record, Status
from eva_bench.records.store import Busy, ClaimLost, Store
from eva_bench.run import ranks
from eva_bench.run.console import comparison, inputs, introduction, summary
from eva_bench.run.session import Session
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import NonFiniteLoss, UserError, missing_extra
from eva_bench.system.meter import Cost
from eva_bench.system.processes import distributed, is_main_process
from eva_bench.system.progress import say, warn
from eva_bench.system.signals import Interrupted, StopSignal

if TYPE_CHECKING:
    from eva_bench.run.prepare import Run

EXIT_CODES: dict[Status, int] = {"ok": 0, "skipped": 0, "failed": 1, "interrupted": 130}


def run_cell(spec: RunSpec, session: Session | None = None) -> int:
    """Run one specification, unless it is done already; returns the exit code.

    Args:
        spec: what to run, and where.
        session: of the sweep that this cell belongs to; a single run listens to signals by itself. For a sweep the
            record alone says that a cell is done; somebody who asks for one run also wants its adapter here.

    Raises:
        UserError: the specification cannot work; nothing was recorded.
    """
    store = Store(spec.where.results_dir)
    if not is_main_process():
        return _run_claimed(spec, store, session) if ranks.told_to_run(spec.run_id) else 0
    say(introduction(spec) if session is None else f"\n{spec.run_id}: {inputs(spec)}")
    with ranks.deciding(spec.run_id) as decision:
        try:
            store.check_writable()
            if _is_done(store, spec, session is None):
                return 0
            with store.claim(spec.run_id, spec.where.wait, lambda: say("waiting: another process runs this cell")):
                if _is_done(store, spec, session is None):  # finished by the process we waited for
                    return 0
                known = store.read(spec)
                if known and known.status == "ok" and session is None and not spec.where.force:
                    say(
                        "recorded before, but the adapter is not here: the run is made again "
                        "and compared with its record"
                    )
                decision.run()
                return _run_claimed(spec, store, session)
        except Busy:
            say("another process runs this cell; left to it (wait=false)")
            return 0
        except ClaimLost:
            warn(
                f"{spec.run_id} stood still for so long that another process took it over: nothing more is written here"
            )
            if distributed():
                return EXIT_CODES["failed"]  # the others are in the middle of it: the launcher ends them
    return run_cell(spec, session)


def _is_done(store: Store, spec: RunSpec, need_adapter: bool) -> bool:
    record = store.read(spec)
    if record is None or record.status != "ok" or spec.where.force:
        return False
    folder = Path(spec.where.runs_dir) / spec.run_id
    if need_adapter and not any((folder / name).is_dir() for name in ("adapter", "model")):
        return False
    say("already done: nothing is computed again (force=true runs it anew)")
    say(summary(record, spec, store.path(spec)))
    return True


def _run_claimed(spec: RunSpec, store: Store, session: Session | None) -> int:
    _offline()
    if session is not None:
        return _run(spec, store, session)
    with StopSignal() as stop:
        return _run(spec, store, Session(stop))


def _run(spec: RunSpec, store: Store, session: Session) -> int:
    from eva_bench.run import pipeline  # noqa: PLC0415 - imports torch, which a finished cell does not need
    from eva_bench.run.prepare import prepare  # noqa: PLC0415 - imports torch, which a finished cell does not need

    run: Run | None = None
    status: Status = "ok"
    error: str | None = None
    try:
        run = prepare(spec, session, store)
        pipeline.execute(run)
        make_record(spec, status, None, run.outcome, run.meter.phases)  # a fact that fits no record fails here
    except (UserError, ClaimLost):
        raise
    except Interrupted as reason:
        status, error = "interrupted", f"interrupted {reason}"
    except NonFiniteLoss as reason:
        status, error = "failed", str(reason)
    except Exception as reason:
        if sentence := missing_extra(reason):
            raise UserError(sentence) from reason
        status, error = "failed", f"{type(reason).__name__}: {reason}"
        _keep_traceback(spec)
    if not is_main_process():
        return EXIT_CODES[status]
    session.stop.deferred = True  # from here on it takes a moment only
    try:
        return _keep(spec, store, run, status, error)
    finally:
        session.stop.deferred = False


def _keep(spec: RunSpec, store: Store, run: Run | None, status: Status, error: str | None) -> int:
    """Record, W&B, summary; the exit code."""
    record = make_record(spec, status, error, run.outcome if run else Outcome(), run.meter.phases if run else {})
    known = store.read(spec)
    try:
        if known is not None and known.status == record.status == "ok" and not spec.where.force:
            path = store.path(spec)  # a repetition: the first record stays
            say(comparison(known, record))
        else:
            path = store.write(record)
    except OSError as reason:
        warn(
            f"the record of {spec.run_id} ({status}) cannot be written: {reason.strerror}. "
            "Nothing else is lost: the same command continues"
        )
        return EXIT_CODES["failed"]
    if run:
        run.tracker.finish(record)
    say(summary(record, spec, path, run.tracker.where if run else None))
    return EXIT_CODES[status]


def make_record(spec: RunSpec, status: Status, error: str | None, outcome: Outcome, costs: dict[str, Cost]) -> Record:
    """The record of a run as far as it came.

    Raises:
        ValidationError: the outcome holds something that fits no record. An unfinished run's facts that do not fit are
            left out, so that its failure is recorded all the same.
    """
    facts = dict(outcome) if status == "ok" else _sound(outcome)
    return Record(
        run_id=spec.run_id,
        train_id=spec.train_id,
        init_id=spec.init_id,
        status=status,
        spec=spec,
        origins=spec.origins,
        costs=costs,
        code=code_version(),
        packages=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        error=_without_paths(error),
        **facts,
    )


def _sound(outcome: Outcome) -> dict[str, object]:
    """The facts that fit a record and its JSON: whatever else is wrong, a failure is recorded."""
    sound: dict[str, object] = {}
    for name, value in outcome:
        with suppress(Exception):
            Outcome(**{name: value}).model_dump_json()
            sound[name] = value
    return sound


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
    folder = Path(spec.where.runs_dir) / spec.run_id
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
