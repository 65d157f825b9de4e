"""Demonstrations of scripted experts (the pocket stand-in for the paper's replay data), and evaluation episodes.

A training row is an episode of an expert that is disturbed; how much differs from episode to episode, so that returns
vary. A validation or test row is an episode to be played, with what the noiseless expert does in it. Every
episode has a separate seed, from which start, goal and noise follow.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eva_bench.system.files import write_atomically
from eva_bench.system.paths import WORK
from eva_bench.system.progress import warn
from pocket.datasets.splits import stream
from tasks.control.environment import Environment, versions
from tasks.control.experts import demonstrate, policy

VERSION = 2
SIZES = {"train": 40, "validation": 50, "test": 30}  # episodes
NOISE = 0.4  # the largest standard deviation; that of an episode is uniform between 0 and this one
FOLDER = WORK / "runs" / "cache" / "demonstrations"
_ARRAYS = ("seed", "observations", "actions", "rewards", "success", "success_any")


def fingerprint(task: str) -> str:
    """Checksum of everything the episodes of a task follow from."""
    facts = {"task": task, "version": VERSION, "sizes": SIZES, "noise": NOISE} | versions()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def generate(split: str, task: str, draw: int = 0) -> list[dict[str, Any]]:
    """Rows of one task; test and validation rows carry the smallest and largest return of the training rows.

    Another draw has other episodes of the split.
    """
    rows = episodes(task, split, SIZES[split], NOISE if split == "train" else 0.0, draw)
    if split != "train":
        returns = [float(row["rewards"].sum()) for row in generate("train", task)]
        rows = [row | {"returns": (min(returns), max(returns))} for row in rows]
    return rows


@lru_cache(maxsize=16)
def episodes(task: str, split: str, count: int, noise: float, draw: int = 0) -> list[dict[str, Any]]:
    """Episodes of a task's expert, from the disk if they have been played before.

    Args:
        task: name of the task.
        split: which of its random streams.
        count: number of episodes.
        noise: largest standard deviation of the noise on actions.
        draw: number of the draw.

    Raises:
        UserError: there is no such task, or no simulator.
    """
    file = FOLDER / f"{task}-{split}{draw or ''}-{count}-{fingerprint(task)[:12]}.npz"
    known = _read(file)
    if known is None:
        known = _play(task, stream(f"{VERSION}/{task}/{split}", draw), count, noise)
        _write(file, known)
    return [{"task": task} | {name: known[name][i] for name in _ARRAYS} for i in range(count)]


def _play(task: str, source: str, count: int, noise: float) -> dict[str, np.ndarray]:
    environment, act = Environment(task), policy(task)
    played = []
    for index in range(count):
        digest = hashlib.sha256(f"{source}/{index}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") >> 1
        level = noise * np.random.default_rng([seed, 1]).random()
        played.append(demonstrate(environment, act, seed, level))
    return {name: np.array([episode[name] for episode in played]) for name in _ARRAYS}


def _read(file: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file) as stored:
            return {name: stored[name] for name in _ARRAYS}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warn(f"the stored episodes {file.name} cannot be read and are played again ({type(error).__name__})")
        return None


def _write(file: Path, arrays: dict[str, np.ndarray]) -> None:
    def save(path: Path) -> None:
        with path.open("wb") as stream:  # given a path, numpy would add a suffix
            np.savez(stream, **arrays)

    with suppress(OSError):  # only a cache: a read-only folder costs time, not the run
        write_atomically(file, save)
