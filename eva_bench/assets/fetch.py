"""Downloads to a local mirror at pinned revisions, so that runs need no network.

Data sets go to `data/hub/<id>` and models to `data/models/<id>`, where runs look for them by themselves. A lock keeps
two downloads apart; every file's checksum is compared with tasks/manifest/ where one is pinned; `.complete.json` is
written last, so a half download is never taken for a whole one. A cut connection is taken up
again at once; a command that is given again brings the files that are missing.
"""

from __future__ import annotations

import errno
import importlib
import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlparse

from filelock import FileLock

from eva_bench.assets.catalogue import complete_file, default_root, entry, hub_revision, local_file, origin
from eva_bench.assets.identity import ModelSource
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of, write_atomically

CONNECT_TIMEOUT_S = 5.0
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")  # of a checkpoint's top folder
GB = 1e9


def check_network() -> None:
    """Fail within seconds, once, where the hub cannot be reached. Raises UserError."""
    from huggingface_hub import constants  # noqa: PLC0415 - it reads its offline switch when it is imported

    host = urlparse(constants.ENDPOINT)
    port = host.port or (80 if host.scheme == "http" else 443)
    try:
        socket.create_connection((host.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(
            f"{host.hostname} cannot be reached ({error}). Run the same command on a machine with network "
            "and copy its data/ folder here."
        ) from error


def verify_dataset(name: str) -> None:
    """Check a data set that a person has to put here.

    Raises:
        UserError: it is not here, with where it comes from, or what is wrong with it.
    """
    info = entry(name)
    if "loader" in info:
        print(f"{name}: {importlib.import_module(info['loader']).verify(info, name)}")
        return
    for split, facts in info["splits"].items():
        path = local_file(name, split, None)
        if facts.get("sha256") not in (None, sha256_of(path)):
            raise UserError(f"{name}: {path.name} does not have the pinned checksum{origin(info)}.")
    print(f"{name}: {', '.join(info['splits'])} are here")


def dataset_files(name: str) -> dict[str, str | None]:
    """Files of a data set's repository, as its manifest entry names them, and their pinned checksums."""
    info = entry(name)
    if "pattern" in info:
        return {info["pattern"]: None}
    parts = info.get("splits", {"file": info}).values()  # a loader's entry may have one file for all splits
    named = ((part["file"], part.get("sha256")) for part in parts)
    return {(file if isinstance(file, str) else file[0]): sha256 for file, sha256 in named}


def fetch_dataset(name: str) -> None:
    """One data set's files at the pinned revision, checked against the manifest.

    Raises:
        UserError: it cannot be downloaded, or a file has another checksum; one sentence with what to do.
    """
    info = entry(name)
    repo = info.get("repo", name)  # one repository may hold several data sets
    source = Source(name, "dataset", repo, info["revision"], f"the entry '{name}' of tasks/manifest/")
    _fetch(source, dataset_files(name), default_root() / repo, complete_file(name))


def fetch_model(model: ModelSource) -> None:
    """One model at its pinned revision.

    Raises:
        UserError: it cannot be downloaded, or its weights are not published; one sentence with what to do.
    """
    name = model.name
    if model.hub_id is None:
        print(f"{name}: carried by the package, nothing to fetch")
        return
    folder = paths.DATA / "models" / model.hub_id
    if model.revision is None:
        if not (folder / "config.json").is_file():
            raise UserError(f"{name}: its weights are not published. conf/model/{name}.yaml says how to make them.")
        print(f"{name}: already here")
        return
    source = Source(name, "model", model.hub_id, model.revision, f"conf/model/{name}.yaml")
    _fetch(source, dict.fromkeys(MODEL_FILES), folder, folder / ".complete.json")


@dataclass(frozen=True)
class Source:
    """A repository of the hub at a revision: the name that the project has for it, and where that is written down."""

    name: str
    kind: str  # model or dataset
    repo: str
    revision: str
    named_in: str

    @property
    def page(self) -> str:
        """Its address for a person."""
        from huggingface_hub import constants  # noqa: PLC0415 - it reads its offline switch when it is imported

        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


def _fetch(source: Source, wanted: dict[str, str | None], folder: Path, complete: Path) -> None:
    """Files of a repository into a folder; `complete` is written when all are there and right.

    Args:
        wanted: names or patterns of files, and the checksum where one is pinned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), _explained(source):
        known = json.loads(complete.read_text()) if complete.exists() else {}
        if known and source.revision in (known["revision"], "unpinned"):
            print(f"{source.name}: already here")
            return
        commit, sizes = _listing(source, wanted)
        print(f"{source.name}: {source.repo} at {commit[:10]}, {len(sizes)} files, {sum(sizes.values()) / GB:.2f} GB")
        _check_space(source, folder, sizes)
        digests = {file: _download(source, file, commit, folder, wanted.get(file)) for file in sizes}
        write_atomically(complete, json.dumps({"revision": commit, "sha256": digests}, indent=1))


def _listing(source: Source, wanted: dict[str, str | None]) -> tuple[str, dict[str, int]]:
    """The commit that a revision is, and the files that are wanted with their sizes in bytes.

    Raises:
        UserError: a wanted file is not there.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - it reads its offline switch when it is imported

    revision = hub_revision(source.revision)
    info = HfApi().repo_info(source.repo, repo_type=source.kind, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if source.kind == "model":  # other formats lie in folders
        sizes = {name: size for name, size in sizes.items() if "/" not in name}
    chosen = {name: size for name, size in sizes.items() if any(fnmatch(name, pattern) for pattern in wanted)}
    absent = [name for name in wanted if "*" not in name and name not in sizes]
    if absent or not chosen:
        names = ", ".join(absent) or " or ".join(wanted)
        raise UserError(
            f"{source.repo} has no file {names} at revision {source.revision}: "
            f"{source.named_in} needs others ({source.page})."
        )
    return str(info.sha), chosen


def _download(source: Source, file: str, commit: str, folder: Path, pinned: str | None) -> str | None:
    """One file, unless it is here whole; the checksum of a data set's file."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - it reads its offline switch when it is imported

    path = Path(hf_hub_download(source.repo, file, repo_type=source.kind, revision=commit, local_dir=folder))
    if source.kind == "model":
        return None  # a run computes it
    digest = sha256_of(path)
    if pinned not in (None, digest):
        path.unlink()
        raise UserError(f"{source.name}: {file} does not have the pinned checksum and was removed; fetch again.")
    return digest


def _check_space(source: Source, folder: Path, sizes: dict[str, int]) -> None:
    """Raises UserError where what is still missing does not fit on the disk: before anything is downloaded."""
    missing = sum(size for name, size in sizes.items() if not (folder / name).is_file())
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise UserError(
            f"{source.repo} needs {missing / GB:.1f} GB more and the disk of data/ has {free / GB:.1f} GB free: "
            "make room, "
            "or let data/ be a link to a larger disk."
        )


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """What the hub or the disk refuses, as one sentence with what to do."""
    from huggingface_hub import errors  # noqa: PLC0415 - it reads its offline switch when it is imported

    repo = source.repo
    try:
        yield
    except (errors.HTTPError, OSError, RuntimeError) as error:
        if isinstance(error, errors.GatedRepoError):
            sentence = (
                f"{repo} is gated: accept its licence on {source.page} and log in "
                "with `hf auth login` (or set HF_TOKEN), "
                "then give the same command again."
            )
        elif isinstance(error, errors.RevisionNotFoundError):
            revision = source.revision
            sentence = f"{repo} has no revision {revision} any more: {source.named_in} needs another ({source.page})."
        elif isinstance(error, errors.RepositoryNotFoundError):
            sentence = (
                f"{repo} is not on the hub, or is private: {source.named_in} names it, "
                "`hf auth login` opens what is yours."
            )
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            sentence = f"The disk is full before {repo} is complete: make room the same command brings the rest."
        else:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            sentence = f"The download of {repo} broke off ({reason}): the same command brings what is missing."
        raise UserError(sentence) from error
