"""Runs cells of a sweep one after the other, in whatever process or SLURM job it was started.

`python -m eva_bench.sweeps.worker <file> [first] [count]` runs lines of a file of composed cells.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eva_bench.records.record import Outcome
from eva_bench.records.store import Store
from eva_bench.run.cell import EXIT_CODES, make_record, run_cell
from eva_bench.run.session import Session
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import UserError
from eva_bench.system.files import write_atomically
from eva_bench.system.signals import Interrupted, StopSignal, leave


def run_cells(specs: Iterable[RunSpec]) -> int:
    """Run cells one after the other; a cell that cannot run is a failed record, the others still run.

    Returns:
        The worst exit code; 130 if the process was asked to stop, which also stops the cells that were left.
    """
    worst = 0
    stop = StopSignal()
    session = Session(stop)
    try:
        with stop:
            for spec in specs:
                worst = max(worst, _run(spec, session))
                if stop.requested:
                    break
    except Interrupted:  # between two cells
        pass
    stop.hand_on()
    return EXIT_CODES["interrupted"] if stop.requested else worst


def _run(spec: RunSpec, session: Session) -> int:
    try:
        return run_cell(spec, session)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        with suppress(OSError):  # a full disk is what the sentence says
            Store(spec.where.results_dir).write(make_record(spec, "failed", str(error), Outcome(), {}))
        return 2


@dataclass(frozen=True)
class Part:
    """Some cells of a file, as one job. Called again after a requeue it continues."""

    file: str
    first: int
    count: int

    def __call__(self) -> int:
        code = run_cells(read_cells(Path(self.file), self.first, self.count))
        if code == EXIT_CODES["interrupted"]:
            sys.exit(code)  # the job did not finish, whatever the scheduler does next
        return code

    def checkpoint(self):
        """What submitit queues again before a time limit: the same cells; finished ones return at once."""
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 - only a machine with SLURM needs it

        return DelayedSubmission(self)


def write_cells(file: Path, specs: Iterable[RunSpec]) -> None:
    """Composed cells, one JSON line each, written atomically."""
    write_atomically(file, "".join(spec.to_json() + "\n" for spec in specs))


def read_cells(file: Path, first: int = 0, count: int | None = None) -> list[RunSpec]:
    """Cells `first` to `first + count` of a file; without `count` all that follow."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [RunSpec.from_json(line) for line in lines[first : None if count is None else first + count]]


if __name__ == "__main__":
    leave(run_cells(read_cells(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
