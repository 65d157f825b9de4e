"""What a model or a data set is: its files and one checksum over them, whatever their folder is. No torch here."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pydantic import ConfigDict

from eva_bench.assets.catalogue import entry, hub_revision, local_file
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from eva_bench.system.files import read_sealed, sha256_of, write_sealed
from eva_bench.system.frozen import Frozen


def cached_sha256(path: Path, runs_dir: str) -> str:
    """SHA-256 of a large file, remembered by path, size, inode and both times (tools can set one of them)."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_ino}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
    return _remembered(key, lambda: sha256_of(path), runs_dir)


def _remembered(key: str, compute: Callable[[], str], runs_dir: str) -> str:
    """A checksum that was computed for this key before, or now."""
    cache_file = Path(runs_dir) / "cache" / "digests.json"
    try:
        known = dict(read_sealed(cache_file))
    except (OSError, ValueError, TypeError):
        known = {}  # absent or damaged: computed again
    if key not in known:
        known[key] = compute()
        with contextlib.suppress(OSError):  # only a cache: a read-only folder costs time, not the run
            write_sealed(cache_file, known)
    return known[key]


class ModelIdentity(Frozen):
    """A checkpoint: its name, and one checksum over its configuration, tokenizer and weights."""

    checkpoint: str
    sha256: str


class DataIdentity(Frozen):
    """A data set: its name and checksums; for a generator the checksum of the rows it makes.

    Loaders add facts of their own (numbers of rows, checksums of images).
    """

    model_config = ConfigDict(extra="allow")

    name: str
    sha256: Any = None  # one, one a split, or one a part and split
    revision: Any = None
    as_pinned: bool | None = None  # whether the files are those that the manifest names
    deviation: str | None = None  # how the copy differs from the official one
    harness_sha256: list[str] | None = None  # of the task YAMLs that ask and read answers


class ModelSource(Protocol):
    """Where a model comes from: the fields of a model's settings that are read here."""

    @property
    def name(self) -> str: ...
    @property
    def hub_id(self) -> str | None: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def path(self) -> str | None: ...


def model_folder(model: ModelSource) -> Path:
    """The local folder that holds a model's files.

    Order: model.path, a checkpoint the package carries, `data/models/<hub id>`, the Hugging Face cache.

    Raises:
        UserError: not on this machine; names the command that gets it.
    """
    if model.path and not model.path.startswith("pocket:"):
        folder = Path(model.path).expanduser()
        if not folder.is_dir():
            raise UserError(f"model.path={model.path} is not a folder.")
        if not (folder / "config.json").is_file():
            raise UserError(f"model.path={model.path} is not a Hugging Face checkpoint: it has no config.json.")
        return folder
    if model.path:
        return paths.POCKET_WEIGHTS / model.path.removeprefix("pocket:")
    if model.hub_id is None:
        raise UserError(f"Model {model.name} has neither hub_id nor path (conf/model/{model.name}.yaml).")
    mirror = paths.DATA / "models" / model.hub_id
    if (mirror / "config.json").is_file():
        return mirror
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - it reads its offline switch when it is imported

    found = try_to_load_from_cache(model.hub_id, "config.json", revision=hub_revision(model.revision))
    if isinstance(found, str):
        return Path(found).parent
    if model.revision is None:
        raise UserError(
            f"Model {model.name} is not on this machine, and its weights are not published: "
            f"conf/model/{model.name}.yaml says how to make them."
        )
    raise UserError(
        f"Model {model.hub_id} is not on this machine. Get it where there is network: "
        f"make fetch MODEL={model.name} (or give a local checkpoint: model.path=<folder>)."
    )


# JSON files beside a checkpoint that nothing here reads: listings, and the settings of sentence-transformers.
UNREAD = {"manifest.json", "model.safetensors.index.json", "modules.json", "data_config.json"}
UNREAD |= {"config_sentence_transformers.json", "sentence_bert_config.json"}


def weight_files(folder: Path) -> list[Path]:
    """Configs, tokenizer and weights: everything in a checkpoint that can change a number."""
    patterns = ("*.json", "*.safetensors", "*.model", "*.txt")
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name not in UNREAD)


def model_identity(model: ModelSource, runs_dir: str) -> ModelIdentity:
    """What the weights are: one digest over all files of the checkpoint.

    Raises:
        UserError: not on this machine, or without weights.
    """
    folder = model_folder(model)
    files = weight_files(folder)
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(f"The checkpoint '{folder.name}' has no *.safetensors file with weights.")
    listing = {path.name: cached_sha256(path, runs_dir) for path in files}
    own = model.path is None or model.path.startswith("pocket:")
    name = (model.hub_id or model.name) if own else folder.name
    return ModelIdentity(checkpoint=name, sha256=sha256_of(json.dumps(listing, sort_keys=True)))


@cache
def _generated_sha256(generator: str, subset: str | None, runs_dir: str) -> str:
    """Checksum of the rows that a generator makes: once per process, a suite asks for every cell.

    It is remembered as long as the code of the generator's package and the installed packages stay the same.
    """
    package = Path(next(iter(importlib.import_module(generator.partition(".")[0]).__path__)))
    code = [[str(file.relative_to(package)), sha256_of(file)] for file in sorted(package.rglob("*.py"))]
    installed = Path(sysconfig.get_path("purelib"))  # its time changes with whatever is installed or removed
    environment = [sys.version, str(installed), installed.stat().st_mtime_ns]
    key = sha256_of(json.dumps([generator, subset, code, environment]))
    return _remembered(
        key, lambda: importlib.import_module(generator).fingerprint(*([subset] if subset else [])), runs_dir
    )


def data_identity(name: str, root: str | None, runs_dir: str) -> DataIdentity:
    """Name and checksums of a data set; for a generator the checksum of the rows it makes.

    Args:
        name: entry of tasks/manifest/.
        root: folder of local data sets; None for the mirror that `make fetch` fills.
        runs_dir: where checksums of large files and of generated rows are remembered.

    Raises:
        UserError: no such entry, or not on this machine.
    """
    info = entry(name)
    if "generator" in info:
        return DataIdentity(name=name, sha256=_generated_sha256(info["generator"], info.get("subset"), runs_dir))
    if "loader" in info:
        return DataIdentity(name=name, **importlib.import_module(info["loader"]).identity(info, name, root))
    found, pinned = {}, True
    for split, facts in info["splits"].items():
        found[split] = cached_sha256(local_file(name, split, root), runs_dir)
        pinned &= facts.get("sha256") in (None, found[split])
    return DataIdentity(name=name, revision=info.get("revision"), sha256=found, as_pinned=pinned)
