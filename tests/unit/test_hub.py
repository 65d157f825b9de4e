"""Downloads against a stand-in hub: whole or not at all, continued, and every refusal one sentence with what to do."""

from __future__ import annotations

import errno
import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from eva_bench.assets import catalogue
from eva_bench.run import fetch
from eva_bench.system import paths
from eva_bench.system.files import sha256_of
from tests.hub import NEWEST, Hub, serving

DATA = "meta-math/MetaMathQA"
MODEL, CHECKPOINT = "deberta_v3_base", "microsoft/deberta-v3-base"  # no data of its pretraining is fetched with it


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one data set and one model, that `huggingface_hub` takes for the real one; an empty data folder."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "rows.json").write_text("[1]")
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(b"weights")
    hub = Hub()
    hub.repository("dataset", DATA, catalogue.entry(DATA)["revision"]).files["MetaMathQA-395K.json"] = (
        source / "rows.json"
    )
    model = hub.repository(
        "model", CHECKPOINT, yaml.safe_load((paths.CONF / f"model/{MODEL}.yaml").read_text())["revision"]
    )
    names = ("config.json", "model.safetensors")
    model.files |= {name: source / name for name in names} | {"onnx/model.safetensors": source / "config.json"}
    with serving(hub):
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(paths, "DATA", tmp_path / "data")
        yield hub


def refused(capsys, *arguments: str) -> str:
    """The one sentence of a fetch that ends with exit code 2."""
    assert fetch.main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def whole(folder: Path) -> bool:
    """Whether a folder says that it is complete."""
    return bool(list(folder.glob(".complete*.json")))


def test_a_complete_data_set_is_not_fetched_again(hub, tmp_path):
    assert fetch.main([f"data={DATA}"]) == 0 == fetch.main([f"data={DATA}"])
    assert hub.sent == [("MetaMathQA-395K.json", 0)]
    complete = json.loads((tmp_path / "data/hub" / DATA / ".complete.json").read_text())
    assert complete["revision"] == catalogue.entry(DATA)["revision"]


def test_a_model_comes_without_the_other_formats_in_its_folders(hub, tmp_path):
    assert fetch.main([f"model={MODEL}"]) == 0
    folder = tmp_path / "data/models" / CHECKPOINT
    assert {file.name for file in folder.iterdir() if file.is_file()} == {
        "config.json",
        "model.safetensors",
        ".complete.json",
    }


def test_a_file_with_another_checksum_is_removed_and_named(hub, tmp_path, monkeypatch, capsys):
    split = catalogue.entry(DATA)["splits"]["train"]
    monkeypatch.setitem(split, "sha256", "0" * 64)
    assert "does not have the pinned checksum and was removed" in refused(capsys, f"data={DATA}")
    folder = tmp_path / "data/hub" / DATA
    assert not (folder / split["file"]).exists() and not whole(folder)
    monkeypatch.setitem(split, "sha256", sha256_of("[1]"))
    assert fetch.main([f"data={DATA}"]) == 0


def test_an_unpinned_repository_is_taken_as_it_is_and_its_commit_is_kept(hub, tmp_path):
    name = "ml-jku/meta-world/push"
    assert catalogue.entry(name)["revision"] == "unpinned"
    hub.repository("dataset", "ml-jku/meta-world").files["2M/push-v2.npz"] = tmp_path / "source/rows.json"
    assert fetch.main([f"data={name}"]) == 0 == fetch.main([f"data={name}"])
    assert len(hub.sent) == 1
    assert catalogue.revision_here(name, None) == f"unpinned, {NEWEST}"


def test_a_cut_connection_is_taken_up_where_it_broke(hub, tmp_path, monkeypatch):
    file = tmp_path / "source/rows.json"
    file.write_bytes(bytes(range(250)) * 20)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cuts = [1500]
    assert fetch.main([f"data={DATA}"]) == 0
    assert hub.sent == [("MetaMathQA-395K.json", 0), ("MetaMathQA-395K.json", 1000)]
    assert (tmp_path / "data/hub" / DATA / "MetaMathQA-395K.json").read_bytes() == file.read_bytes()


def test_after_a_broken_download_the_same_command_brings_the_missing_files(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    folder = tmp_path / "data/models" / CHECKPOINT
    hub.cuts = [100] + 20 * [1]  # the first file is shorter: it comes whole
    assert "broke off" in refused(capsys, f"model={MODEL}")
    assert (folder / "config.json").exists() and not (folder / "model.safetensors").exists() and not whole(folder)
    hub.cuts, hub.sent = [], []
    assert fetch.main([f"model={MODEL}"]) == 0
    assert hub.sent == [("model.safetensors", 0)] and whole(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gated": True}, "is gated: accept its licence on {hub}/" + CHECKPOINT + " and log in with `hf auth login`"),
        ({"commit": NEWEST}, "any more: conf/model/deberta_v3_base.yaml needs another"),
        ({"files": {}}, "has no file *.json or *.safetensors"),
        (None, "is not on the hub, or is private: conf/model/deberta_v3_base.yaml names it"),
    ],
    ids=["gated", "revision gone", "no files", "repository gone"],
)
def test_what_the_hub_refuses_is_one_sentence(hub, tmp_path, capsys, change, sentence):
    repository = hub.repositories.pop(("model", CHECKPOINT))
    if change is not None:
        hub.repositories["model", CHECKPOINT] = replace(repository, **change)
    assert sentence.format(hub=hub.address) in refused(capsys, f"model={MODEL}")
    assert not whole(tmp_path / "data/models" / CHECKPOINT)


def test_a_data_file_that_its_owner_renamed_is_named(hub, tmp_path, capsys):
    files = hub.repositories["dataset", DATA].files
    files["other.json"] = files.pop("MetaMathQA-395K.json")
    sentence = refused(capsys, f"data={DATA}")
    assert "has no file MetaMathQA-395K.json at revision" in sentence and "tasks/manifest/" in sentence


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(hub, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "free")(3))
    assert "needs 0.0 GB more and the disk of data/ has 0.0 GB free" in refused(capsys, f"model={MODEL}")
    assert hub.sent == []


def test_a_disk_that_is_full_on_the_way_leaves_nothing_half_written(hub, tmp_path, monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        assert "The disk is full before meta-math/MetaMathQA is complete" in refused(capsys, f"data={DATA}")
    assert not whole(tmp_path / "data/hub" / DATA)
    assert fetch.main([f"data={DATA}"]) == 0
