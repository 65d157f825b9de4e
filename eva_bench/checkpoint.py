"""Checkpoints that survive: written atomically, read back whole or not at all; and the wish to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch

from eva_bench.progress import warn


class Interrupted(BaseException):
    """The run was asked to stop (Ctrl-C, SIGTERM, SIGUSR1); its checkpoint is on disk."""


class StopSignal:
    """Turns signals into a stop at the next safe point; outside training into `Interrupted` at once.

    SIGTERM and SIGUSR1 are what SLURM sends before a time limit or a preemption.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False  # inside the training loop, which stops between two steps
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in self.SIGNALS:
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:
                pass  # not in the main thread: whoever runs us there handles signals
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        second_time = self.requested
        self.requested = True
        if second_time or not self.deferred:
            raise Interrupted(signal.Signals(number).name)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that at every moment either the old or the new one is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint, or None if there is none or it cannot be read (a warning says so)."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        warn(f"the checkpoint {path.name} cannot be read and is ignored ({type(error).__name__})")
        return None
