"""Checkpoints that survive: written atomically, read back whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from eva_bench.system.files import write_atomically
from eva_bench.system.progress import warn


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that at every moment either the old or the new one is there, whole.

    A full disk is a warning: the older checkpoint stays, and the run goes on.
    """
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # torch.save turns some errors of the disk into RuntimeError
        warn(f"the checkpoint {path.name} cannot be written ({error})")


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint, or None if there is none or it cannot be read (a warning says so)."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        warn(f"the checkpoint {path.name} cannot be read and is ignored ({type(error).__name__})")
        return None
