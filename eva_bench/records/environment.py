"""The environment of a run: code version, packages, hardware; and the checksum of the code behind caches. No torch here."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from typing import Any

from eva_bench.system.paths import ROOT

PACKAGES = ("torch", "transformers", "peft", "accelerate", "lm_eval", "hydra-core", "numpy", "safetensors", "tokenizers")


def code_version() -> dict[str, Any]:
    """Commit and whether files differ from it, if this is a git checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "eva_bench", "baselines", "tasks", "pocket", "conf", "run.py")
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


STARTS_AND_TRAINS = ("eva_bench/eva/*.py", "baselines/*.py", "eva_bench/methods/svd.py", "eva_bench/methods/layer.py", "eva_bench/run/train.py")


@cache
def _training_code() -> str:
    """Checksum of the code behind starts and trained weights."""
    files = sorted(path for pattern in STARTS_AND_TRAINS for path in ROOT.glob(pattern))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def cached_name(identity: str) -> str:
    """File name for a cached start or training: other code must not find what this code left."""
    return f"{identity}-{_training_code()[:8]}.safetensors"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """Kind of machine, never its name. Imports torch only where it is loaded already."""
    facts: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count(), "system": platform.system()}
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
            facts["gpus"] = torch.cuda.device_count()
    return facts
