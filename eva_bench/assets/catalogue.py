"""Where rows come from: a generator of this project or a local mirror of a hub repository. No torch here."""

from __future__ import annotations

import importlib
import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from eva_bench.assets.tables import read_table
from eva_bench.system import paths
from eva_bench.system.errors import UserError, did_you_mean


@cache
def manifest() -> dict[str, Any]:
    """All entries of tasks/manifest/*.yaml by name."""
    entries: dict[str, Any] = {}
    for path in sorted(paths.MANIFESTS.glob("*.yaml")):
        entries |= yaml.safe_load(path.read_text())
    return entries


def entry(name: str) -> dict[str, Any]:
    """The manifest's entry of a data set.

    Raises:
        UserError: no such entry.
    """
    if name not in manifest():
        raise UserError(f"Data set '{name}' is not in tasks/manifest/.{did_you_mean(name, manifest())}")
    return manifest()[name]


def pretraining_data(model: str) -> str | None:
    """The entry with held-out pretraining data of a model of conf/model/, which forgetting is measured on; or None."""
    return next((name for name, info in manifest().items() if model in info.get("pretraining_of", ())), None)


def drawn_anew(name: str) -> bool:
    """Whether every seed is evaluated on rows of its own: those of a generator, which costs nothing."""
    return "generator" in entry(name)


def local_file(name: str, split: str, root: str | None) -> Path:
    """Path of a split's file below the data root; of several alternatives in the manifest, the first that is there.

    Raises:
        UserError: the data set is not there; names the command that gets it.
    """
    info = entry(name)
    if split not in info["splits"]:
        raise UserError(f"Data set '{name}' has no split '{split}'; it has {', '.join(info['splits'])}.")
    folder = Path(root or default_root()) / info.get("repo", name)
    named = info["splits"][split]["file"]
    files = [named] if isinstance(named, str) else named
    path = next((folder / file for file in files if (folder / file).is_file()), None)
    if path is not None:
        return path
    where = f"below data.root={root}" if root else "below data/hub"
    if "by_hand" in info:
        raise UserError(f"Data set '{name}' ({files[0]}) is not {where}: put it at {folder / files[0]}{origin(info)}.")
    raise UserError(
        f"Data set '{name}' ({files[0]}) is not {where}. Get it on a machine with network: make fetch DATA={name}"
    )


def origin(info: dict[str, Any]) -> str:
    """Where a data set that no hub has comes from, in brackets after a space; empty if its `by_hand` does not say."""
    return f" ({info['by_hand']})" if isinstance(info["by_hand"], str) else ""


def hub_revision(revision: str | None) -> str | None:
    """What the hub is asked for: a pinned commit, or the newest one where a pin is not known (`revision: unpinned`)."""
    return "main" if revision == "unpinned" else revision


def complete_file(name: str) -> Path:
    """What `make fetch` writes last: the commit and the checksums that it found."""
    repo = entry(name).get("repo", name)
    part = "" if repo == name else f"-{name.replace('/', '-')}"
    return default_root() / repo / f".complete{part}.json"


def revision_here(name: str, root: str | None) -> str:
    """The pinned revision of a data set; for an unpinned one the commit that `make fetch` found."""
    pinned: str = entry(name)["revision"]
    file = complete_file(name)
    if pinned != "unpinned" or root or not file.is_file():
        return pinned
    return f"unpinned, {json.loads(file.read_text())['revision']}"


def default_root() -> Path:
    """Where `make fetch` keeps its mirror of data sets."""
    return paths.DATA / "hub"


def load_rows(name: str, split: str, root: str | None = None, draw: int = 0) -> list[dict[str, Any]]:
    """All rows of a split as plain dictionaries.

    Args:
        name: entry of the manifest.
        split: its name there.
        root: folder of local data sets; None for the mirror.
        draw: which rows of a split a generator makes; a file has only its own.

    Raises:
        UserError: missing, unreadable or empty file.
    """
    info = entry(name)
    if "generator" in info:
        return _generated(info["generator"], split, info.get("subset"), draw)
    if "loader" in info:
        return importlib.import_module(info["loader"]).load(info, name, split, root)
    return read_split(name, split, root)


def read_split(name: str, split: str, root: str | None = None) -> list[dict[str, Any]]:
    """All rows of the file that holds a split.

    Raises:
        UserError: missing, unreadable or empty file.
    """
    path = local_file(name, split, root)
    try:
        rows = read_table(path)
    except (OSError, ValueError) as error:  # what json, pyarrow and UTF-8 raise for damaged files is a ValueError
        reason = str(error).partition("\n")[0]
        raise UserError(f"Cannot read {path.name} of data set '{name}': {reason}") from error
    if not rows:
        raise UserError(f"Data set '{name}' has no rows in split '{split}'.")
    return rows


@lru_cache(maxsize=16)
def _generated(generator: str, split: str, subset: str | None, draw: int) -> list[dict[str, Any]]:
    """Rows that a generator makes, once for all cells of a sweep that share a process; nobody changes them."""
    which = {"draw": draw} if draw else {}  # a generator whose rows are only trained on has one draw
    return importlib.import_module(generator).generate(split, *([subset] if subset else []), **which)
