"""Checkpoints that survive: written atomically, read back whole or not at all."""

from __future__ import annotations

import zipfile
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
        with zipfile.ZipFile(path) as archive:  # torch.save writes checksums, torch.load does not look at them
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {damaged} differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("its content is of another kind")
        return state
    except Exception as error:
        warn(f"the checkpoint {path.name} cannot be read and is ignored ({type(error).__name__}: {error})")
        return None
