"""Caches of initialisations and trained weights by fingerprint; a damaged file is noticed and made again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from eva_bench.methods.base import Initialisation
from eva_bench.methods.layer import Factors
from eva_bench.system.files import read_sealed, write_atomically, write_sealed
from eva_bench.system.progress import warn


def save_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON facts with a checksum, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    metadata = {"facts": text, "sha256": checksum(tensors, text)}
    write_atomically(path, lambda file: save_file(tensors, file, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts, or None if the file is absent or damaged (a warning says so)."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if checksum(tensors, metadata["facts"]) != metadata["sha256"]:
            raise ValueError("checksum differs")
        return tensors, json.loads(metadata["facts"])
    except Exception as error:
        warn(f"the cache file {path.name} is damaged and is made again ({error})")
        return None


def checksum(tensors: dict[str, Tensor], text: str = "") -> str:
    """SHA-256 over a text and tensors: their names, shapes, types and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_initialisation(path: Path, start: Initialisation) -> None:
    """Write initial factors with a checksum, atomically."""
    tensors = {f"{layer}/{part}": t for layer, f in start.factors.items() for part, t in f.tensors().items()}
    scales = {layer: f.scale for layer, f in start.factors.items()}
    save_tensors(path, tensors, {"scales": scales, "facts": start.facts})


def load_initialisation(path: Path) -> Initialisation | None:
    """Initial factors, or None if the file is absent or damaged (a warning says so)."""
    found = load_tensors(path)
    if found is None:
        return None
    tensors, stored = found
    factors = {}
    for layer, scale in stored["scales"].items():
        A, B = tensors[f"{layer}/A"], tensors[f"{layer}/B"]
        s, magnitude = tensors.get(f"{layer}/s"), tensors.get(f"{layer}/magnitude")
        factors[layer] = Factors(A, B, s, magnitude, scale)
    return Initialisation(factors=factors, facts=stored["facts"])


def save_metrics(path: Path, metrics: dict[str, float]) -> None:
    """Write metrics with a checksum, atomically."""
    write_sealed(path, metrics)


def load_metrics(path: Path) -> dict[str, float] | None:
    """Metrics, or None if the file is absent or damaged (a warning says so)."""
    try:
        return dict(read_sealed(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        warn(f"the cache file {path.parent.name}/{path.name} is damaged and is made again ({error})")
        return None
