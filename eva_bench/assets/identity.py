"""What a model or a data set is: its files and one checksum over them, whatever their folder is called. No torch here."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from eva_bench.assets.catalogue import entry, local_file
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of
from eva_bench.system.paths import DATA, POCKET_WEIGHTS


def cached_sha256(path: Path, runs_dir: str) -> str:
    """SHA-256 of a large file, remembered by path, size and modification time."""
    cache_file = Path(runs_dir) / "cache" / "digests.json"
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    try:
        known = json.loads(cache_file.read_text())
    except (OSError, ValueError):
        known = {}  # absent or damaged: computed again
    if key not in known:
        known[key] = sha256_of(path)
        try:
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            temporary = cache_file.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(known))
            temporary.replace(cache_file)
        except OSError:
            pass  # only a cache: a read-only folder costs time, not the run
    return known[key]


def model_folder(model: dict[str, Any], explicit_path: str | None) -> Path:
    """The local folder that holds a model's files.

    Order: model.path, a checkpoint the package carries, `data/models/<hub id>`, the Hugging Face cache.

    Raises:
        UserError: not on this machine; names the command that gets it.
    """
    if explicit_path and not explicit_path.startswith("pocket:"):
        folder = Path(explicit_path).expanduser()
        if not folder.is_dir():
            raise UserError(f"model.path={explicit_path} is not a folder.")
        if not (folder / "config.json").is_file():
            raise UserError(f"model.path={explicit_path} is not a Hugging Face checkpoint: it has no config.json.")
        return folder
    if explicit_path:
        return POCKET_WEIGHTS / explicit_path.removeprefix("pocket:")
    mirror = DATA / "models" / model["hub_id"]
    if (mirror / "config.json").is_file():
        return mirror
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model["hub_id"], "config.json", revision=model["revision"])
    if isinstance(found, str):
        return Path(found).parent
    if model["revision"] is None:
        raise UserError(f"Model {model['name']} is not on this machine, and its weights are not published: conf/model/{model['name']}.yaml says how to make them.")
    raise UserError(
        f"Model {model['hub_id']} is not on this machine. Get it where there is network: "
        f"make fetch MODEL={model['name']} (or give a local checkpoint: model.path=<folder>)."
    )


def weight_files(folder: Path) -> list[Path]:
    """Configs, tokenizer and weights: everything in a checkpoint that can change a number."""
    patterns = ("*.json", "*.safetensors", "*.model", "*.txt")
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name not in ("manifest.json", "model.safetensors.index.json"))


def model_identity(plain: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What the weights are: one digest over all files of the checkpoint."""
    folder = model_folder(plain["model"], options["model_path"])
    files = weight_files(folder)
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(f"The checkpoint '{folder.name}' has no *.safetensors file with weights.")
    listing = {path.name: cached_sha256(path, options["runs_dir"]) for path in files}
    digest = hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    path = options["model_path"]
    own = path is None or path.startswith("pocket:")
    name = (plain["model"]["hub_id"] or plain["model"]["name"]) if own else folder.name
    return {"checkpoint": name, "sha256": digest}


def data_names(plain: dict[str, Any]) -> tuple[str, str]:
    """Manifest names of the training and the evaluation data."""
    if plain["data"]["source"] == "pocket":
        return plain["data"]["pocket_train"], plain["task"]["pocket"]
    return plain["data"]["train"] or plain["task"]["dataset"], plain["task"]["dataset"]


@cache
def _generated_sha256(generator: str, subset: str | None) -> str:
    """Checksum of the rows that a generator makes: once per process, a suite asks for every cell."""
    return importlib.import_module(generator).fingerprint(*([subset] if subset else []))


def data_identity(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Name and checksums of a data set; for a generator the checksum of the rows it makes."""
    info = entry(name)
    if "generator" in info:
        return {"name": name, "sha256": _generated_sha256(info["generator"], info.get("subset"))}
    if "loader" in info:
        return {"name": name} | importlib.import_module(info["loader"]).identity(info, name, options["data_root"])
    found, pinned = {}, True
    for split, facts in info["splits"].items():
        found[split] = cached_sha256(local_file(name, split, options["data_root"]), options["runs_dir"])
        pinned &= facts.get("sha256") in (None, found[split])
    return {"name": name, "revision": info["revision"], "sha256": found, "as_pinned": pinned}
