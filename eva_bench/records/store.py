"""A folder of JSON records: atomic writes, many writers, claims that outlive crashes. No torch here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from eva_bench.records.claim import Busy, claim, is_running
from eva_bench.records.record import Record, load_record
from eva_bench.system.errors import UserError
from eva_bench.system.progress import warn

__all__ = ["Busy", "Store"]


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
        """Write a record atomically. Whatever it replaces is kept in `superseded/`; nothing recorded is lost.

        A failure after a success (force=true) goes to `superseded/` itself: the finished record stays in place.

        Raises:
            OSError: the record cannot be written; whatever was there before is still there.
        """
        path = self.path(record.run_id)
        old = self.read(record.run_id)
        if path.exists():
            aside = self.records / "superseded" / f"{record.run_id}.{uuid.uuid4().hex[:8]}.json"
            aside.parent.mkdir(exist_ok=True)
            if old is not None and old.status == "ok" and record.status != "ok":
                path = aside
            else:
                shutil.copyfile(path, aside)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(record.model_dump_json(indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)  # half a record after a full disk
        return path

    def claim(self, key: str, wait: bool, on_wait: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Hold the claim on a key; see eva_bench.records.claim."""
        return claim(self._claim_path(key), wait, on_wait)

    def is_running(self, run_id: str) -> bool:
        """Whether a live process holds the claim on a run."""
        return is_running(self._claim_path(run_id))

    def _claim_path(self, key: str) -> Path:
        return self.claims / f"{key}.claim"


def _read(path: Path) -> Record | None:
    try:
        return load_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        warn(f"{path.name} is not a readable record and is skipped ({reason})")
        return None
