"""How long the rest of a sweep takes, from the seconds that records of the same cells have. Never imports torch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from eva_bench.records.store import Store
from eva_bench.settings.spec import RunSpec
from eva_bench.system.progress import duration


class Remaining:
    """An estimate that learns how fast the sweep is from what is done of it.

    Args:
        specs: the cells that are run.

    Attributes:
        expected_s: expected seconds of every cell, by run id; equal where nothing is known.
    """

    def __init__(self, specs: Sequence[RunSpec]):
        known = {spec.run_id: recorded_seconds(Store(spec.where.results_dir).folder(spec)) for spec in specs}
        usual = mean(found) if (found := [seconds for seconds in known.values() if seconds]) else 1.0
        self.expected_s = {run_id: seconds or usual for run_id, seconds in known.items()}
        self.from_records = bool(found)
        self._done_s = 0.0
        self._started = time.monotonic()

    def finish(self, run_id: str) -> None:
        """One cell is done."""
        self._done_s += self.expected_s.pop(run_id, 0.0)

    def seconds_left(self) -> float | None:
        """The cells that are left, at the speed of those that are done; None before the first one."""
        if not self._done_s:
            return None
        return sum(self.expected_s.values()) * (time.monotonic() - self._started) / self._done_s

    def before(self, processes: int) -> str:
        """What is to be done, before anything is."""
        if not self.from_records:
            return "how long this takes is known after the first cells"
        return f"about {duration(sum(self.expected_s.values()) / processes)}, by the seconds of earlier records"


def recorded_seconds(folder: Path) -> float | None:
    """The mean over the records of a task and method, of whatever seed and protocol; None where there is none."""
    totals = []
    for path in folder.glob("*.json"):
        try:
            costs = json.loads(path.read_text())["costs"]
            totals.append(sum(phase["seconds"] for phase in costs.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # whoever reads records reports damaged ones
    return mean(totals) if totals else None
