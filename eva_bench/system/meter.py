"""Seconds and peak memory of the phases of a run."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Cost(BaseModel):
    """What a phase of a run took; a phase that runs twice adds up."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = 0.0
    peak_bytes: int = 0  # of resident memory
    device_peak_bytes: int | None = None  # where there is a device with a memory of its own

    @property
    def memory_bytes(self) -> int:
        """Peak of the memory that runs out first: the device's where there is one, else the process's."""
        return self.peak_bytes if self.device_peak_bytes is None else self.device_peak_bytes


class Meter:
    """Collects the cost of every phase of a run."""

    def __init__(self) -> None:
        self.phases: dict[str, Cost] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside the block."""
        _reset_peak()
        start = time.perf_counter()
        try:
            yield
        finally:
            cost = self.phases.setdefault(name, Cost())
            cost.seconds = round(cost.seconds + time.perf_counter() - start, 3)
            cost.peak_bytes = max(cost.peak_bytes, peak_bytes())
            if (device := _device_peak()) is not None:
                cost.device_peak_bytes = max(cost.device_peak_bytes or 0, device)


def _reset_peak() -> None:
    with contextlib.suppress(OSError):  # elsewhere than on Linux the mark is that of the whole process
        _CLEAR.write_text("5")  # start a new high-water mark of resident memory
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Peak resident memory of this process since the last reset, in bytes."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_peak() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_allocated()
