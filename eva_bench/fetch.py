"""`make fetch TASK=gsm8k SCALE=lite`: fill a local mirror at pinned revisions, so that runs need no network.

Data sets go to `data/hub/<id>` and models to `data/models/<id>`, where runs look for them by themselves. A
lock keeps two fetches apart; every file's checksum is compared with tasks/manifest/ where one is pinned;
`.complete.json` is written last, so a half download is never taken for a whole one. What no hub has (entries with
`by_hand`) is not downloaded: it is told where it comes from, and what lies here is verified.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import yaml
from filelock import FileLock

from eva_bench.errors import UserError, did_you_mean
from eva_bench.explain import options
from eva_bench.plan import tasks_of
from eva_bench.provenance import sha256_of
from eva_bench.spec import CONF, ROOT
from tasks.sources import default_root, entry

CONNECT_TIMEOUT_S = 5.0
MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what a task needs at a scale, or one model, or one data set. Exit code 2 with one sentence on error."""
    try:
        wanted = _parse(sys.argv[1:] if arguments is None else arguments)
        datasets, models = needs(**wanted)
        if not datasets and not models:
            print("nothing to fetch: the pocket scale makes its own data and carries its models")
            return 0
        by_hand = [name for name in datasets if "by_hand" in entry(name)]
        for name in by_hand:
            verify_dataset(name)
        downloads = [name for name in datasets if name not in by_hand]
        if downloads or models:
            check_network()
        for name in downloads:
            fetch_dataset(name)
        for name in models:
            fetch_model(name)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments: Sequence[str]) -> dict[str, str]:
    wanted = dict(item.split("=", 1) for item in arguments if "=" in item)
    if not wanted or set(wanted) - {"task", "scale", "model", "data"}:
        raise UserError("Usage: make fetch TASK=gsm8k SCALE=lite, make fetch MODEL=smollm2_135m or make fetch DATA=openai/gsm8k.")
    return wanted


def needs(task: str | None = None, scale: str = "lite", model: str | None = None, data: str | None = None):
    """Manifest names of data sets and names of model configs that are wanted.

    Raises:
        UserError: unknown task, scale, model or data set.
    """
    datasets, models = [], []
    if task:
        _known("scale", scale)
        for name in tasks_of(task):
            _known("task", name)
            if scale != "pocket":
                more_data, of_recipe = _of_task(name, scale)
                datasets, models = datasets + more_data, [model or of_recipe]
    elif model:
        models = [model]
    if data:
        datasets.append(data)
    datasets = list(dict.fromkeys(part for name in datasets for part in entry(name).get("parts", [name])))
    for name in models:
        _known("model", name)
    return datasets, models


def _of_task(task: str, scale: str) -> tuple[list[str], str]:
    """Data sets of a task and the model of its recipe at a scale."""
    config = yaml.safe_load((CONF / "task" / f"{task}.yaml").read_text())
    recipe_file = CONF / "recipe" / scale / f"{config['family']}.yaml"
    if not recipe_file.exists():
        raise UserError(f"There is no recipe for task family '{config['family']}' at scale '{scale}'.")
    recipe = yaml.safe_load(recipe_file.read_text())
    train = recipe["data"].get("train")
    own = train is None or train.startswith("${")  # the task's own training rows
    datasets = [config["dataset"]] if own else [train, config["dataset"]]
    return datasets, next(item["override /model"] for item in recipe["defaults"] if "override /model" in item)


def _known(group: str, name: str) -> None:
    if name not in options(group):
        raise UserError(f"Unknown {group} '{name}'.{did_you_mean(name, options(group))} Known: {', '.join(options(group))}.")


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
    """Check a data set that a person has to put here; raises UserError that says from where, or what is wrong with it."""
    info = entry(name)
    print(f"{name}: {importlib.import_module(info['loader']).verify(info, name)}")


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
        for split, facts in info["splits"].items():
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
    folder = ROOT / "data" / "models" / model["hub_id"]
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


if __name__ == "__main__":
    sys.exit(main())
