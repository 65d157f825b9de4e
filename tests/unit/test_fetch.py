"""Fetching: what is needed, what is refused, and that a machine without network learns so at once."""

import json
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from eva_bench.assets import catalogue
from eva_bench.run import fetch
from eva_bench.system import paths
from pocket.datasets import vtab1k
from tasks import vtab_archive


def names(*arguments: str) -> tuple[list[str], list[str]]:
    """Data sets and models that a command line asks for."""
    found = fetch.needs(fetch.FetchArguments(**dict(item.split("=", 1) for item in arguments)))
    return found.datasets, list(found.models)


def test_a_task_at_a_scale_names_its_data_and_model():
    datasets = ["meta-math/MetaMathQA", "openai/gsm8k", "wikitext-2"]  # the last for what the model forgets
    assert names("task=gsm8k", "scale=lite") == (datasets, ["smollm2_135m"])
    assert names("task=gsm8k", "scale=paper") == (datasets, ["llama2_7b"])
    assert names("task=gsm8k", "scale=paper", "model=gemma2_9b")[1] == ["gemma2_9b"]
    assert names("task=gsm8k", "scale=pocket") == ([], [])
    assert names("model=decision_paper") == ([], ["decision_paper"])
    assert names("data=ml-jku/meta-world/hammer") == (["ml-jku/meta-world/hammer"], [])


def test_the_composed_settings_of_the_run_decide_what_it_needs():
    deberta = names("task=glue/rte", "scale=paper", "recipe=paper/glue_deberta/rte")
    assert deberta == (["nyu-mll/glue/rte"], ["deberta_v3_base"])
    assert names("task=metaworld/push", "scale=lite") == ([], ["decision_lite"])
    assert names("task=metaworld/push", "scale=paper") == (["ml-jku/meta-world/push"], ["decision_paper"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["task=gsm9", "scale=lite"], "Unknown task 'gsm9'. Did you mean 'gsm8k'?"),
        (["task=gsm8k", "scale=huge"], "Unknown scale 'huge'."),
        (["model=llama"], "Unknown model 'llama'."),
        (["data=openai/gsm9k"], "Data set 'openai/gsm9k' is not in tasks/manifest/. Did you mean 'openai/gsm8k'"),
        ([], "What to fetch? make fetch TASK=gsm8k SCALE=lite"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, sentence, capsys):
    assert fetch.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_without_network_it_says_so_within_seconds(monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    start = time.monotonic()
    assert fetch.main(["task=gsm8k", "scale=lite"]) == 2
    assert time.monotonic() - start < 10
    assert "127.0.0.1 cannot be reached" in capsys.readouterr().err


def test_an_archive_that_no_hub_has_is_verified_without_network(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(vtab_archive, "archive_root", lambda: tmp_path)
    assert fetch.main(["data=vtab1k/kitti"]) == 2
    assert "unpack vtab-1k.zip there" in capsys.readouterr().err

    sizes = {"train": 8, "validation": 4, "test": 12}
    vtab1k.write(tmp_path, "kitti", sizes)
    assert fetch.main(["data=vtab1k/kitti"]) == 2
    assert "train800.txt has 8 images, officially 800" in capsys.readouterr().err

    monkeypatch.setattr(vtab_archive, "TRAINING_IMAGES", {"train": 8, "validation": 4, "train_validation": 12})
    monkeypatch.setitem(catalogue.entry("vtab1k/kitti"), "test_images", 12)
    assert fetch.main(["data=vtab1k/kitti"]) == 0
    assert "vtab1k/kitti: 24 images in 4 classes" in capsys.readouterr().out
    known = json.loads((tmp_path / "kitti" / vtab_archive.CHECKSUMS).read_text())
    assert sum(known["histogram"]["train_validation"].values()) == 12
    (tmp_path / "kitti/images/test/000001.png").write_bytes(b"broken")
    assert fetch.main(["data=vtab1k/kitti"]) == 2
    assert "'000001.png' cannot be decoded" in capsys.readouterr().err


@pytest.fixture
def own_data(monkeypatch, tmp_path) -> Path:
    """The folder of a CSV data set that a manifest entry says has to be put there by hand."""
    splits = {split: {"file": f"{split}.csv"} for split in ("train", "test")}
    info = {"by_hand": "export of the ticket system", "licence": "own", "splits": splits}
    monkeypatch.setitem(catalogue.manifest(), "own/tickets", info)
    monkeypatch.setattr(catalogue, "default_root", lambda: tmp_path)
    return tmp_path / "own/tickets"


def test_data_put_there_by_hand_is_told_where_it_comes_from_and_found(own_data, capsys):
    assert fetch.main(["data=own/tickets"]) == 2
    error = capsys.readouterr().err
    assert f"put it at {own_data / 'train.csv'} (export of the ticket system)" in error and error.count("\n") == 1
    own_data.mkdir(parents=True)
    for split in ("train", "test"):
        (own_data / f"{split}.csv").write_text("question,label\nWhy?,1\n")
    assert fetch.main(["data=own/tickets"]) == 0
    assert "own/tickets: train, test are here" in capsys.readouterr().out
    assert catalogue.load_rows("own/tickets", "train") == [{"question": "Why?", "label": 1}]
    catalogue.entry("own/tickets")["splits"]["test"]["sha256"] = "0" * 64
    assert fetch.main(["data=own/tickets"]) == 2
    assert "test.csv does not have the pinned checksum (export of the ticket system)" in capsys.readouterr().err


def test_a_model_without_published_weights_is_said_to_be_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    assert fetch.main(["model=decision_lite"]) == 2
    assert "not published. conf/model/decision_lite.yaml says how" in capsys.readouterr().err


def test_a_group_of_tasks_names_all_its_data_and_one_model():
    datasets, models = names("task=vtab1k", "scale=paper")
    assert len(datasets) == 19 and models == ["dinov2_g14"]
