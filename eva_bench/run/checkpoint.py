"""Checkpoints that survive: written atomically, read back whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

import torch

from eva_bench.system.progress import warn
from eva_bench.system.signals import Interrupted, StopSignal

__all__ = ["Interrupted", "StopSignal", "load", "save"]


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that at every moment either the old or the new one is there, whole.

    A full disk is a warning: the older checkpoint stays, and the run goes on.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save turns some errors of the disk into RuntimeError
        warn(f"the checkpoint {path.name} cannot be written ({error})")
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint, or None if there is none or it cannot be read (a warning says so)."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        warn(f"the checkpoint {path.name} cannot be read and is ignored ({type(error).__name__})")
        return None
