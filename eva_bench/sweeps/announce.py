"""What other processes of a sweep have finished, told while they run. Never imports torch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eva_bench.records.store import Store
from eva_bench.settings.spec import RunSpec
from eva_bench.sweeps.plan import Cell, Plan
from eva_bench.sweeps.remaining import Remaining
from eva_bench.system.progress import duration, say


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
    by_path = {store.path(cell.spec): cell for cell in cells}  # once: a path holds a hash of all settings
    seen = {path: _written(path) for path in by_path}
    finished, planned = 0, len(remaining.expected_s)
    while True:
        last = done.wait(every_s)
        for path, cell in by_path.items():
            if (written := _written(path)) != seen[path]:
                seen[path] = written
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


def _written(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None
