"""Code version, packages and hardware of a run, and the checksum of the code behind caches. No torch here."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from typing import Any

from eva_bench.system.files import sha256_of
from eva_bench.system.paths import ROOT

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "lm_eval",
    "hydra-core",
    "numpy",
    "safetensors",
    "tokenizers",
)


def code_version() -> dict[str, Any]:
    """Commit and whether files differ from it, if this is a git checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "eva_bench", "baselines", "tasks", "pocket", "conf", "run.py")
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


# Whole folders: an edit anywhere in what initialises, trains or evaluates must never be answered from an old cache.
ROOMS = ("run", "probes", "eva", "methods", "models", "settings", "assets")
CODE = ("baselines", "tasks", "eva_bench/task.py", *(f"eva_bench/{room}" for room in ROOMS))


@cache
def code_checksum() -> str:
    """Checksum of the code behind initial factors, trained weights and scores."""
    roots = [ROOT / name for name in CODE]
    found = (file for root in roots for file in ([root] if root.is_file() else root.rglob("*")))
    files = sorted(file for file in found if file.suffix in (".py", ".yaml"))  # manifests say which split is trained on
    listing = {file.relative_to(ROOT).as_posix(): sha256_of(file) for file in files}
    return sha256_of(json.dumps(listing))


def cached_name(identity: str) -> str:
    """File name for cached factors or weights: other code must not find what this code left."""
    return f"{identity}-{code_checksum()[:8]}.safetensors"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
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
