"""Transitions in the layout of the paper's control data: one npz a task, its episodes one behind the other.

Arrays: observations (n, 39), actions (n, 4), rewards (n,), dones (n,), true at the last step of an episode; others are
ignored (EVA, arXiv:2410.07170v5, appendix E: 2M transitions a task, from Schmied et al., arXiv:2306.14884). Arrays that
were stored without compression are mapped, not read. No torch here.
"""

from __future__ import annotations

import importlib
import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eva_bench.assets.catalogue import default_root, revision_here
from eva_bench.assets.identity import cached_sha256
from eva_bench.system.errors import UserError
from eva_bench.system.paths import WORK
from tasks.control.environment import ACTION_SIZE, STATE_SIZE

SHAPES = {"observations": (STATE_SIZE,), "actions": (ACTION_SIZE,), "rewards": (), "dones": ()}


def load(entry: dict[str, Any], name: str, split: str, root: str | None) -> list[dict[str, Any]]:
    """Trajectories of the file (train), or episodes to be played whose target is the file's largest return."""
    if split == "train":
        return read(_path(entry, name, root))
    returns = [float(np.sum(row["rewards"], dtype=np.float64)) for row in read(_path(entry, name, root))]
    played = importlib.import_module(entry["episodes"]).generate(split, entry["subset"])
    return [row | {"returns": (min(returns), max(returns))} for row in played]


def identity(entry: dict[str, Any], name: str, root: str | None) -> dict[str, Any]:
    """Checksums of the file and of the episodes to be played."""
    episodes = importlib.import_module(entry["episodes"]).fingerprint(entry["subset"])
    file = cached_sha256(_path(entry, name, root), str(WORK / "runs"))
    return {"revision": revision_here(name, root), "sha256": file, "episodes_sha256": episodes}


def _path(entry: dict[str, Any], name: str, root: str | None) -> Path:
    path = Path(root or default_root()) / entry["repo"] / entry["file"]
    if not path.is_file():
        where = f"below data.root={root}" if root else "below data/hub"
        raise UserError(
            f"Data set '{name}' is not {where}: {entry['repo']}/{entry['file']} is missing. "
            f"Get it on a machine with network: make fetch DATA={name}"
        )
    return path


@lru_cache(maxsize=2)
def read(path: Path) -> list[dict[str, np.ndarray]]:
    """Trajectories of one file, as views of its arrays.

    Raises:
        UserError: no npz, missing arrays, wrong shapes, no transitions, or an episode without an end.
    """
    try:
        arrays = _arrays(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"Cannot read {path.name}: {error}") from error
    if missing := [name for name in SHAPES if name not in arrays]:
        raise UserError(f"{path.name} has no array {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'none'}.")
    n = len(arrays["rewards"])
    if n == 0:
        raise UserError(f"{path.name} has no transitions: its trajectories are empty.")
    for name, shape in SHAPES.items():
        if arrays[name].shape != (n, *shape):
            raise UserError(f"{path.name}: {name} has shape {arrays[name].shape}, not {(n, *shape)}.")
    ends = np.flatnonzero(arrays["dones"]) + 1
    if len(ends) == 0 or ends[-1] != n:
        raise UserError(f"{path.name}: the last transition ends no episode (dones).")
    starts = np.concatenate([[0], ends[:-1]])
    names = ("observations", "actions", "rewards")
    return [{name: arrays[name][a:b] for name in names} for a, b in zip(starts, ends, strict=True)]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        members = {
            info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")
        }
        return {name: _mapped(path, archive, info) for name, info in members.items() if name in SHAPES}


def _mapped(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """The array of one member: mapped if it lies in the file as it is, else read."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
        if info.compress_type != zipfile.ZIP_STORED or 0 in shape:
            return np.lib.format.read_array(archive.open(info), allow_pickle=False)
        header_bytes = stream.tell()
    with path.open("rb") as file:  # the local header repeats the name and may hold more than the directory says
        file.seek(info.header_offset + 26)
        name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    offset = info.header_offset + 30 + name_bytes + extra_bytes + header_bytes
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
