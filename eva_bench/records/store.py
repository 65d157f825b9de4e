"""A folder of JSON records: atomic writes, many writers, claims that outlive crashes. No torch here."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eva_bench.records.claim import Busy, Claim, ClaimLost, claim, is_running
from eva_bench.records.record import Record, load_record
from eva_bench.settings.spec import RunSpec
from eva_bench.system.files import check_writable, write_atomically
from eva_bench.system.progress import warn

__all__ = ["Busy", "ClaimLost", "Store", "read_record"]


class Store:
    """Records in `<results>/records/<scale>/<task>/<method>/<run_id>.json`, claims in `<results>/claims`."""

    def __init__(self, results: str | Path):
        self.records = Path(results) / "records"
        self.superseded = Path(results) / "superseded"
        self.claims = Path(results) / "claims"
        self._held: list[Claim] = []

    def check_writable(self) -> None:
        """Refuse early what could not be recorded. Raises UserError if the results folder cannot be written."""
        for folder in (self.records.parent, self.records):
            check_writable(folder, "results")
        self.claims.mkdir(exist_ok=True)

    def folder(self, spec: RunSpec) -> Path:
        """Where records of this scale, task and method are."""
        return self.records / spec.scale.name / spec.task.name / spec.method.name

    def path(self, spec: RunSpec) -> Path:
        """The file of a run's record."""
        return self.folder(spec) / f"{spec.run_id}.json"

    def read(self, spec: RunSpec) -> Record | None:
        """The record of a run, or None; a corrupt file is reported and treated as absent."""
        path = self.path(spec)
        return read_record(path) if path.exists() else None

    def read_all(self) -> list[Record]:
        """Every readable record, sorted by path; corrupt files are reported and skipped."""
        with _without_garbage_collection():
            records = [read_record(path) for path in sorted(self.records.rglob("*.json"))]
        return [record for record in records if record is not None]

    def write(self, record: Record) -> Path:
        """Write a record atomically. Whatever it replaces is kept in `superseded/`; nothing recorded is lost.

        A failure after a success (force=true) goes to `superseded/` itself: the finished record stays in place.

        Raises:
            OSError: the record cannot be written; whatever was there before is still there.
            ClaimLost: another process took over what this one holds a claim on.
        """
        self.check_claims()
        path = self.folder(record.spec) / f"{record.run_id}.json"
        if path.exists():
            old = read_record(path)
            aside = self.superseded / f"{record.run_id}.{uuid.uuid4().hex[:8]}.json"
            if old is not None and old.status == "ok" and record.status != "ok":
                path = aside
            else:
                write_atomically(aside, path.read_bytes())
        write_atomically(path, record.to_json())
        return path

    @contextmanager
    def claim(self, key: str, wait: bool, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the claim on a key; see eva_bench.records.claim."""
        with claim(self._claim_path(key), wait, on_wait) as held:
            self._held.append(held)
            try:
                yield
            finally:
                self._held.remove(held)

    def check_claims(self, now: bool = True) -> None:
        """Before anything is written: whether this process still holds what it claimed.

        Args:
            now: look at the files; otherwise, for checks in a loop, no more often than the claims are touched.

        Raises:
            ClaimLost: another process took over a claim.
        """
        for held in self._held:
            held.check(now)

    def is_running(self, run_id: str) -> bool:
        """Whether a live process holds the claim on a run."""
        return is_running(self._claim_path(run_id))

    def _claim_path(self, key: str) -> Path:
        return self.claims / f"{key}.claim"


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Reading makes objects and no garbage: looking for it again and again takes more than half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()  # what was read stays: it is not looked through now, nor later
            gc.enable()


def read_record(path: Path) -> Record | None:
    """The record in a file, or None; what cannot be read is reported."""
    try:
        if not path.is_file():  # a named pipe would be waited for
            raise OSError("not a file" if path.exists() else "no such file")
        return load_record(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        warn(f"{path.name} is not a readable record and is skipped ({reason})")
        return None
