"""A folder of JSON records: atomic writes, many writers, claims that outlive crashes. No torch here."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eva_bench.errors import UserError
from eva_bench.progress import warn
from eva_bench.record import Record, load_record

HEARTBEAT_S = 5.0
STALE_S = 60.0  # a claim whose heartbeat is older than this has lost its owner


class Busy(Exception):
    """Another live process is running the same cell."""


class Store:
    """Records in `<results>/records`, claims in `<results>/claims`.

    Raises:
        UserError: the results folder cannot be written.
    """

    def __init__(self, results: str | Path):
        self.records = Path(results) / "records"
        self.claims = Path(results) / "claims"

    def check_writable(self) -> None:
        probe = self.records / f".probe-{os.getpid()}"
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            self.claims.mkdir(parents=True, exist_ok=True)
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise UserError(f"The results folder '{self.records.parent}' cannot be written: {error.strerror}.") from error

    def path(self, run_id: str) -> Path:
        return self.records / f"{run_id}.json"

    def read(self, run_id: str) -> Record | None:
        """The record of a run, or None; a corrupt file is reported and treated as absent."""
        path = self.path(run_id)
        return _read(path) if path.exists() else None

    def read_all(self) -> Iterator[Record]:
        """Every readable record, sorted by name; corrupt files are reported and skipped."""
        for path in sorted(self.records.glob("*.json")):
            if (record := _read(path)) is not None:
                yield record

    def write(self, record: Record) -> Path:
        """Write a record atomically. An ok record is never overwritten: it moves aside as `.<time>.old`."""
        path = self.path(record.run_id)
        old = self.read(record.run_id)
        if path.exists() and (old is None or old.status == "ok"):
            if old is not None and record.status != "ok":
                return path  # a later failure does not replace a finished run
            path.replace(path.with_name(f"{path.stem}.{time.time_ns()}.old"))
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(record.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return path

    @contextmanager
    def claim(self, key: str, wait: bool, on_wait=lambda: None) -> Iterator[None]:
        """Hold the claim on a key; a claim whose owner died is taken over.

        Raises:
            Busy: somebody else holds it and `wait` is false.
        """
        path = self.claims / f"{key}.claim"
        owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex})
        told = False
        while not _acquire(path, owner):
            if not wait and path.exists():
                raise Busy(key)
            if not told:
                on_wait()
                told = True
            time.sleep(0.2)
        done = threading.Event()
        heart = threading.Thread(target=_beat, args=(path, done), daemon=True)
        heart.start()
        try:
            yield
        finally:
            done.set()
            heart.join()
            if path.exists() and path.read_text() == owner:
                path.unlink(missing_ok=True)


def _read(path: Path) -> Record | None:
    try:
        return load_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        warn(f"{path.name} is not a readable record and is skipped ({reason})")
        return None


def _acquire(path: Path, owner: str) -> bool:
    """Create the claim file, exclusively: atomic on local and on network file systems."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(owner)
        return True
    except FileExistsError:
        if _is_dead(path):
            _bury(path)
        return False


def _bury(path: Path) -> None:
    """Remove a dead claim. One process at a time, so that nobody removes the claim of a quicker successor."""
    lock = path.with_name(f"{path.name}.takeover")
    try:
        lock.open("x").close()
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime > STALE_S:
                lock.unlink()
        return
    try:
        if _is_dead(path):
            path.unlink(missing_ok=True)
    finally:
        lock.unlink(missing_ok=True)


def _is_dead(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text() or "{}")
    except (OSError, ValueError):
        return False  # being written or just removed: look again
    if owner.get("host") == socket.gethostname() and isinstance(owner.get("pid"), int):
        return not _alive(owner["pid"])
    return age > STALE_S


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_S):
        try:
            os.utime(path)
        except OSError:
            return
