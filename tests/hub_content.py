"""What the stand-in hub holds.

For every model of the recipes a small random checkpoint of its architecture, for every data
set rows in the true columns, splits and file names; and a manifest with the checksums of these files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from eva_bench.assets.catalogue import manifest
from eva_bench.system import paths
from eva_bench.system.files import sha256_of
from pocket.datasets import commonsense, glue, math, metamath, vtab1k
from tests.checkpoints import KINDS, write_checkpoint
from tests.control import trajectories, write_decision, write_npz
from tests.hub import Hub
from tests.vision import ARCHITECTURES, write_vit

ROWS = 12
# Columns of the hub's files beside those that the generated rows have.
FURTHER = {
    "hellaswag": {"source_id": "activitynet~v_1", "split": "train", "split_type": "indomain"},
    "openai/gsm8k": {},
}


def fill(hub: Hub, folder: Path) -> dict[str, Any]:
    """Put all data sets and models of the lite and paper recipes on the hub; the manifest with their checksums."""
    entries = json.loads(json.dumps(manifest()))
    for name, info in entries.items():
        if name.startswith("pocket/") or "parts" in info:
            continue
        if info.get("by_hand"):
            info["test_images"] = info["classes"]
            continue
        repository = hub.repository(
            "dataset", info.get("repo", name), None if info["revision"] == "unpinned" else info["revision"]
        )
        if "file" in info:
            repository.files[info["file"]] = write_npz(folder / name / "x.npz", trajectories(3, 30))
        for split, facts in info.get("splits", {}).items():
            file = facts["file"] if isinstance(facts["file"], str) else facts["file"][0]
            path = _write(folder / name / file, rows_of(name, info, split))
            repository.files[file], facts["sha256"] = path, sha256_of(path)
    return entries


def add_model(hub: Hub, name: str, folder: Path) -> None:
    """Put a small checkpoint of a model of conf/model/ on the hub; weights that nobody published go to data/models."""
    model = yaml.safe_load((paths.CONF / "model" / f"{name}.yaml").read_text())
    if model["kind"] == "decision":  # made by pretraining, not fetched
        write_decision(paths.DATA / "models" / model["hub_id"])
        return
    repository = hub.repository(
        "model", model["hub_id"], None if model["revision"] == "unpinned" else model["revision"]
    )
    write = write_checkpoint if name in KINDS else write_vit
    assert name in KINDS or name in ARCHITECTURES
    repository.files |= {path.name: path for path in write(name, folder / name).iterdir()}


def rows_of(name: str, info: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """Some rows of a data set in the columns of the real one."""
    part, subset = ("train" if split == "train" else "test"), name.rpartition("/")[2]
    if name.startswith("commonsense/"):
        rows = [
            {key: value for key, value in row.items() if key != "set"} for row in commonsense.generate(part, subset)
        ]
    elif name.startswith("nyu-mll/glue/"):
        rows = glue.generate(part, subset)
    elif name == "wikitext-2":
        rows = [{"text": text} for text in (" = A title = \n", " Some text of an article . \n" * 20)]
    else:
        rows = _mathematics(name, part)
    rows = [
        {key: value for key, value in row.items() if key != "part"} | FURTHER.get(subset, {}) for row in rows[:ROWS]
    ]
    if subset == "qqp" and split == "train":
        rows[3]["question2"] = ""  # as in two of the real rows
    return rows


@cache
def _mathematics(name: str, part: str) -> list[dict[str, Any]]:
    from pocket.datasets import gsm8k

    if name == "openai/gsm8k":
        return gsm8k.generate(part)
    if name == "meta-math/MetaMathQA":
        return metamath.generate("train")
    return math.generate(part)


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows))
    return path


def write_archive(task: str) -> None:
    """A task of VTAB-1K's archive where a person would have unpacked it, every class among its test images."""
    info = manifest()[f"vtab1k/{task}"]
    root = paths.DATA / "vtab-1k"
    vtab1k.write(root, task, {"train": 800, "validation": 200, "test": info["classes"]})
    if task != info["folder"]:  # the archive's own name for it
        (root / task).rename(root / info["folder"])
    for file in (paths.DATA / "vtab-1k" / info["folder"]).glob("*.txt"):
        images = [line.rpartition(" ")[0] for line in file.read_text().splitlines()]
        file.write_text("".join(f"{image} {i % info['classes']}\n" for i, image in enumerate(images)))
