"""Commonsense from command to record: one training for nine tasks, every recipe, the real rows, what can go wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from eva_bench.assets import catalogue
from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from pocket.datasets import commonsense
from tasks.commonsense import READERS
from tests.e2e.conftest import SHORT_RUN

SHORT = [item for item in SHORT_RUN if not item.startswith(("eval.max_new_tokens", "eval.limit"))] + ["eval.limit=16"]


def write_sets(root: Path, names: list[str], train: int = 24, test: int = 12) -> Path:
    """Rows of the generator in files laid out as `make fetch` leaves the real ones."""
    for name in names:
        info = catalogue.entry(f"commonsense/{name}")
        for split, facts in info["splits"].items():
            rows = commonsense.generate("train" if split == "train" else "test", name)[
                : train if split == "train" else test
            ]
            rows = [{key: value for key, value in row.items() if key != "set"} for row in rows]
            file = root / info["repo"] / (facts["file"] if isinstance(facts["file"], str) else facts["file"][-1])
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), file)
    return root


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    return write_sets(tmp_path_factory.mktemp("hub"), list(READERS))


def test_the_union_is_trained_on_once_and_every_set_is_scored(checkpoint, command, places, tmp_path):
    start = ["method=lora", f"model.path={checkpoint('smollm2_135m')}", *SHORT, *places]
    for name in ("commonsense", "commonsense/boolq"):
        assert command(*start, f"task={name}")[0] == 0
    records = {record.task: record for record in Store(tmp_path / "results").read_all()}
    union, boolq = records["commonsense"], records["commonsense/boolq"]
    assert union.train_id == boolq.train_id and union.run_id != boolq.run_id
    assert (union.reused["train"], boolq.reused["train"]) == (False, True)
    assert boolq.metrics.keys() >= {"boolq/accuracy", "boolq/chance", "mean", "reference_loss", "truncated"}
    assert {f"{name}/accuracy" for name in READERS} >= {
        key for key in union.metrics if key.endswith("/accuracy") and not key.startswith("forgetting/")
    }
    assert boolq.metrics["boolq/accuracy"] == boolq.metrics["mean"] and boolq.metrics["boolq/chance"] == 0.5
    assert union.data == {"rows": 8 * commonsense.SIZES["train"], "truncated": 0, "dropped": 0}


def test_all_nine_tasks_share_one_training_id(checkpoint, places):
    start = ["method=lora", f"model.path={checkpoint('smollm2_135m')}", *places]
    ids = {
        compose_spec([*start, f"task={name}"]).train_id
        for name in ["commonsense", *(f"commonsense/{n}" for n in READERS)]
    }
    assert len(ids) == 1


def test_eight_scores_at_pocket_scale(checkpoint, places, tmp_path):
    spec = compose_spec(
        ["method=eva", "task=commonsense", f"model.path={checkpoint('smollm2_135m')}", *SHORT, "eval.limit=60", *places]
    )
    assert run_cell(spec) == 0
    record = Store(tmp_path / "results").read(spec)
    assert {f"{name}/{what}" for name in READERS for what in ("accuracy", "chance")} <= record.metrics.keys()
    assert record.metrics["mean"] == pytest.approx(sum(record.metrics[f"{name}/accuracy"] for name in READERS) / 8)
    lines = [json.loads(line) for line in (tmp_path / "runs" / spec.run_id / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 60 and all(line["response"] in line["labels"] for line in lines)


@pytest.mark.parametrize(
    ("scale", "model", "method"),
    [
        ("lite", "smollm2_135m", "lora"),
        ("lite", "qwen2_5_0_5b", "olora"),
        ("paper", "llama2_7b", "eva"),
        ("paper", "llama3_1_8b", "pissa"),
        ("paper", "gemma2_9b", "sorsa"),
    ],
)
def test_every_recipe_on_a_small_checkpoint_of_its_architecture(
    scale, model, method, checkpoint, hub, places, tmp_path
):
    spec = compose_spec(
        [f"method={method}", "task=commonsense", f"scale={scale}", f"model={model}", f"model.path={checkpoint(model)}",
         f"data.root={hub}", "train.lr=1e-3", *SHORT, *places]
    )  # fmt: skip
    assert spec.identity.train_data.name == "commonsense" and len(spec.identity.train_data.sha256) == 8
    assert run_cell(spec) == 0
    record = Store(tmp_path / "results").read(spec)
    assert (record.status, record.steps, record.metrics["samples"], record.data["rows"]) == ("ok", 2, 16, 8 * 24)
    base = AutoModelForCausalLM.from_pretrained(checkpoint(model))
    PeftModel.from_pretrained(base, tmp_path / "runs" / spec.run_id / "adapter")


def test_tuning_keeps_rows_of_the_real_union_aside(checkpoint, hub, places):
    spec = compose_spec(
        [
            "method=lora",
            "task=commonsense",
            "scale=lite",
            f"model.path={checkpoint('smollm2_135m')}",
            f"data.root={hub}",
            "stage=tune",
            "data.holdout=40",
            *SHORT,
            *places,
        ]
    )
    assert run_cell(spec) == 0


@pytest.mark.real
@pytest.mark.parametrize(("name", "rows", "model"), [("winogrande", 10234, "stories260K"), ("arc_easy", 2251, None)])
def test_real_rows_are_read_completely_and_learnt_from(name, rows, model, real_data, places, tmp_path):
    path = [f"model.path={real_data / 'models' / model}"] if model else []
    spec = compose_spec(
        [
            "method=lora",
            f"task=commonsense/{name}",
            f"data.root={real_data / 'hub'}",
            *path,
            "train.steps=6",
            "train.batch_size=4",
            "train.micro_batch_size=4",
            "train.lr=1e-2",
            "calibration.batch_size=4",
            "eval.limit=12",
            "tracking=off",
            "threads=1",
            *places,
        ]
    )
    assert run_cell(spec) == 0
    record = Store(tmp_path / "results").read(spec)
    assert record.data["rows"] == rows and record.data["dropped"] < rows / 20
    assert record.spec.identity.train_data.name == f"commonsense/{name}"
    assert record.metrics.keys() == record.metrics_before.keys() >= {f"{name}/accuracy", "truncated"}
    assert record.metrics["reference_loss"] < record.metrics_before["reference_loss"]


def test_an_unknown_set_is_refused_with_near_matches(command):
    code, _, err = command("method=lora", "task=commonsense/boolqq")
    assert (
        code == 2
        and "Unknown task 'commonsense/boolqq'" in err
        and "commonsense/boolq" in err
        and "Traceback" not in err
    )


def refused(command, checkpoint, places, root: Path, *arguments: str) -> str:
    code, out, err = command(
        "method=lora",
        "task=commonsense/winogrande",
        f"model.path={checkpoint('smollm2_135m')}",
        f"data.root={root}",
        *SHORT,
        *places,
        *arguments,
    )
    assert code == 2 and "Traceback" not in out + err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return sentence


def test_a_union_that_is_not_complete_names_what_is_absent(command, checkpoint, places, tmp_path):
    root = write_sets(tmp_path / "hub", ["winogrande"])
    sentence = refused(command, checkpoint, places, root, "data.train=commonsense")
    assert "commonsense/boolq" in sentence and "make fetch DATA=commonsense" in sentence


def test_a_missing_split_and_damaged_rows_are_named_before_training(command, checkpoint, places, tmp_path):
    root = write_sets(tmp_path / "hub", ["winogrande"])
    file = root / "allenai/winogrande/winogrande_l/train-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist([{k: v for k, v in row.items() if k != "option2"} for row in rows]), file)
    assert "has no column 'option2'" in refused(command, checkpoint, places, root)
    pq.write_table(pa.Table.from_pylist([*rows[:3], rows[3] | {"answer": "7"}, rows[4] | {"sentence": " "}]), file)
    sentence = refused(command, checkpoint, places, root)
    assert "2 of 5 rows of 'commonsense/winogrande' cannot be used" in sentence
    assert "label outside its range: rows 3" in sentence and "no text: rows 4" in sentence
    file.unlink()
    assert "make fetch DATA=commonsense/winogrande" in refused(command, checkpoint, places, root)
