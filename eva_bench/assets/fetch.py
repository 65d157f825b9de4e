"""Downloads to a local mirror at pinned revisions, so that runs need no network.

Data sets go to `data/hub/<id>` and models to `data/models/<id>`, where runs look for them by themselves. A lock keeps two
downloads apart; every file's checksum is compared with tasks/manifest/ where one is pinned; `.complete.json` is
written last, so a half download is never taken for a whole one.
"""

from __future__ import annotations

import importlib
import json
import socket
from pathlib import Path
from urllib.parse import urlparse

import yaml
from filelock import FileLock

from eva_bench.assets.catalogue import default_root, entry, local_file, origin
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of
from eva_bench.system.paths import CONF, DATA

CONNECT_TIMEOUT_S = 5.0
MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]


def check_network() -> None:
    """Fail within seconds, once, where the hub cannot be reached. Raises UserError."""
    from huggingface_hub import constants

    host = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((host.hostname, host.port or 443), timeout=CONNECT_TIMEOUT_S).close()
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


def fetch_dataset(name: str) -> None:
    """One data set's files at the pinned revision, checked against the manifest."""
    from huggingface_hub import hf_hub_download

    info = entry(name)
    if "generator" in info:
        return
    repo = info.get("repo", name)  # one repository may hold several data sets
    folder = default_root() / repo
    with _locked(folder, name.replace("/", "-") if repo != name else "") as complete:
        if complete.exists() and json.loads(complete.read_text())["revision"] == info["revision"]:
            print(f"{name}: already here")
            return
        digests = {}
        for split, facts in info.get("splits", {"file": info}).items():  # a loader's entry may have one file for all
            file = facts["file"] if isinstance(facts["file"], str) else facts["file"][0]
            print(f"{name}: {file}")
            path = Path(hf_hub_download(repo, file, repo_type="dataset", revision=info["revision"], local_dir=folder))
            digests[split] = sha256_of(path)
            if facts.get("sha256") not in (None, digests[split]):
                path.unlink()
                raise UserError(f"{name}: {file} does not have the pinned checksum and was removed; fetch again.")
        complete.write_text(json.dumps({"revision": info["revision"], "sha256": digests}, indent=1))


def fetch_model(name: str) -> None:
    """One model at its pinned revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    model = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    if "hub_id" not in model:
        print(f"{name}: carried by the package, nothing to fetch")
        return
    folder = DATA / "models" / model["hub_id"]
    if "revision" not in model:
        if not (folder / "config.json").is_file():
            raise UserError(f"{name}: its weights are not published. conf/model/{name}.yaml says how to make them.")
        print(f"{name}: already here")
        return
    with _locked(folder) as complete:
        if complete.exists() and json.loads(complete.read_text())["revision"] == model["revision"]:
            print(f"{name}: already here")
            return
        print(f"{name}: {model['hub_id']} at {model['revision'][:10]}")
        try:
            snapshot_download(model["hub_id"], revision=model["revision"], local_dir=folder, allow_patterns=MODEL_FILES)
        except HfHubHTTPError as error:
            raise UserError(
                f"{model['hub_id']} cannot be downloaded ({str(error).splitlines()[0]}). Gated models need an accepted "
                "licence on their hub page and a token: hf auth login."
            ) from error
        complete.write_text(json.dumps({"revision": model["revision"]}))


class _locked:
    """A lock beside the folder; yields the path of the file that is written last, one for each part of a repository."""

    def __init__(self, folder: Path, part: str = ""):
        folder.mkdir(parents=True, exist_ok=True)
        self.lock, self.complete = FileLock(f"{folder}.lock"), folder / f".complete{part and '-'}{part}.json"

    def __enter__(self) -> Path:
        self.lock.acquire()
        return self.complete

    def __exit__(self, *_) -> None:
        self.lock.release()
