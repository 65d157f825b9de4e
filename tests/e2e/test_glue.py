"""GLUE as a user types it: pocket sets, real CoLA and RTE, small checkpoints of the recipes' encoders, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from pocket.datasets import glue
from tests.conftest import CONF

SHORT = [
    "train.epochs=null",
    "train.steps=2",
    "train.batch_size=8",
    "train.micro_batch_size=8",
    "calibration.batch_size=8",
    "adapter.rank=4",
    "eval.limit=40",
    "tracking=off",
    "threads=1",
]
FILES = {"cola": ("train", "validation"), "rte": ("train", "validation"), "stsb": ("train", "validation"),
         "mnli": ("train", "validation_matched", "validation_mismatched")}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """nyu-mll/glue as `make fetch` lays it out, 60 generated rows a file."""
    root = tmp_path_factory.mktemp("hub")
    for subset, splits in FILES.items():
        for i, split in enumerate(splits):
            rows = [
                {k: v for k, v in row.items() if k != "part"}
                for row in glue.generate("train", subset)[60 * i : 60 * i + 60]
            ]
            write_rows(root, subset, split, rows)
    return root


def write_rows(root: Path, subset: str, split: str, rows: list[dict]) -> None:
    folder = root / "nyu-mll/glue" / subset
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


def run(tmp_path: Path, *overrides: str):
    """Run a cell in tmp_path; (specification, record)."""
    places = [f"results_dir={tmp_path / 'results'}", f"runs_dir={tmp_path / 'runs'}"]
    spec = compose_spec([*overrides, *places])
    assert run_cell(spec) == 0
    return spec, Store(tmp_path / "results").read(spec)


def exported_logits(
    tmp_path: Path, spec, base: Path, outputs: int, samples: list[dict], columns: list[str]
) -> list[list[float]]:
    """Outputs of the exported adapter on the untouched encoder, with stock libraries only."""
    module = AutoModelForSequenceClassification.from_pretrained(base, num_labels=outputs)
    model = PeftModel.from_pretrained(module, tmp_path / "runs" / spec.run_id / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        return [model(**tokenizer(*[s[c] for c in columns], return_tensors="pt")).logits[0].tolist() for s in samples]


@pytest.mark.parametrize(("subset", "method"), [("cola", "lora"), ("stsb", "pissa"), ("mnli", "eva")])
def test_a_pocket_run_learns_records_both_epochs_and_exports_its_head(subset, method, tmp_path):
    spec, record = run(
        tmp_path,
        f"method={method}",
        f"task=glue/{subset}",
        "train.epochs=2",
        "eval.limit=80",
        "threads=1",
        "tracking=off",
    )
    task = spec.task
    assert record.status == "ok" and record.trainable_parameters > 0
    for name in (*task.metrics, "collapsed", "reference_loss"):
        assert {name, f"best/{name}"} <= set(record.metrics) and name in record.metrics_before
    assert len(record.epochs) == 2
    assert record.metrics[f"best/{task.primary}"] == max(epoch[task.primary] for epoch in record.epochs)
    assert record.metrics[task.primary] == record.epochs[-1][task.primary]
    assert record.metrics["reference_loss"] < record.metrics_before["reference_loss"]

    samples = [
        json.loads(line) for line in (tmp_path / "runs" / spec.run_id / "samples.jsonl").read_text().splitlines()
    ]
    assert len(samples) == 80
    rows = glue.generate("test", subset, 5)
    found = exported_logits(
        tmp_path, spec, CONF.parent / "pocket/weights/encoder", task.classes, rows, task.format["columns"]
    )
    for outputs, sample in zip(found, samples, strict=False):
        assert outputs == pytest.approx(sample["outputs"], abs=1e-4)
    if subset == "mnli":
        assert {sample["part"] for sample in samples} == {"matched", "mismatched"}


@pytest.mark.parametrize(
    ("scale", "model", "method", "more"),
    [
        ("small", "minilm_l6", "eva", ["data.rows=30"]),
        ("lite", "roberta_base", "olora", []),
        ("paper", "roberta_large", "eva", []),
        ("paper", "deberta_v3_base", "sorsa", ["recipe=paper/glue_deberta/mnli"]),
        ("paper", "roberta_large", "full", ["train.precision=float32"]),
    ],
)
def test_recipes_on_small_checkpoints(scale, model, method, more, checkpoint, hub, tmp_path):
    folder = checkpoint(model)
    spec, record = run(
        tmp_path,
        f"method={method}",
        "task=glue/mnli",
        f"scale={scale}",
        f"model={model}",
        f"model.path={folder}",
        f"data.root={hub}",
        *SHORT,
        *more,
    )
    assert (record.status, record.steps, record.metrics["samples"]) == ("ok", 2, 40)
    assert {"accuracy_matched", "accuracy_mismatched"} <= set(record.metrics)
    assert ("best/accuracy_matched" in record.metrics) == spec.eval.every_epoch
    assert record.spec.identity.train_data.name == "nyu-mll/glue/mnli"
    assert str(folder) not in record.model_dump_json() and str(hub) not in record.model_dump_json()
    exported = tmp_path / "runs" / spec.run_id / ("model" if method == "full" else "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(exported if method == "full" else folder, num_labels=3)
    if method != "full":
        loaded = PeftModel.from_pretrained(base, exported)
        assert {"classifier"} <= set(loaded.peft_config["default"].modules_to_save)


def test_seeds_have_their_own_heads_and_score_before(tmp_path, checkpoint, hub):
    before = [
        run(tmp_path, "method=lora", "task=glue/rte", f"seed={seed}", f"data.root={hub}", *SHORT)[1].metrics_before
        for seed in (0, 1)
    ]
    assert before[0]["reference_loss"] != before[1]["reference_loss"]


@pytest.mark.real
@pytest.mark.parametrize(("subset", "rows", "dev"), [("cola", 8551, 1043), ("rte", 2490, 277)])
def test_real_rows_on_the_pocket_encoder(subset, rows, dev, real_data, tmp_path):
    _, record = run(
        tmp_path,
        "method=eva",
        f"task=glue/{subset}",
        f"data.root={real_data / 'hub'}",
        "train.epochs=null",
        "train.steps=8",
        "data.max_length=64",
        "eval.every_epoch=false",
        "tracking=off",
        "threads=1",
    )
    assert record.status == "ok" and record.spec.identity.train_data.as_pinned
    assert record.data["rows"] == rows and record.metrics["samples"] == record.metrics_before["samples"] == dev
    primary = record.spec.task.primary
    assert all(-1 <= metrics[primary] <= 1 for metrics in (record.metrics_before, record.metrics))
    if subset == "rte":
        assert record.data["truncated"] > 0 and record.metrics["truncated"] > 0


def test_constant_answers_on_cola_are_a_score_of_0_and_counted(tmp_path):
    """A learning rate that leads nowhere: every row gets the same answer."""
    _, record = run(tmp_path, "method=full", "task=glue/cola", "train.lr=3.0", *SHORT)
    assert record.status == "ok" and record.metrics["collapsed"] == 1 and record.metrics["matthews"] == 0


@pytest.fixture
def refused(command, tmp_path):
    def call(*arguments: str) -> str:
        places = [f"results_dir={tmp_path / 'results'}", f"runs_dir={tmp_path / 'runs'}"]
        code, out, err = command("method=lora", *SHORT, *places, *arguments)
        assert code == 2 and "Traceback" not in out + err, err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and not list((tmp_path / "results").rglob("*.json"))
        return lines[0]

    return call


def test_mistakes_in_names_and_data(refused, hub, tmp_path):
    assert "Did you mean 'glue/cola'" in refused("task=glue/colla")
    assert "Data set 'nyu-mll/glue/qnli' (qnli/train-00000-of-00001.parquet) is not below data.root" in refused(
        "task=glue/qnli", f"data.root={hub}"
    )
    broken = tmp_path / "hub"
    write_rows(broken, "cola", "train", [{"sentence": "A text.", "label": 1, "idx": 0}] * 20)
    assert "validation-00000-of-00001.parquet) is not below data.root" in refused(
        "task=glue/cola", f"data.root={broken}"
    )
    unlabelled = {"sentence": "A text.", "label": -1, "idx": 0}  # as in the test split
    write_rows(broken, "cola", "validation", [unlabelled] * 20)
    message = refused("task=glue/cola", f"data.root={broken}")
    assert "20 of 20 rows of 'nyu-mll/glue/cola' have a label outside 0 to 1" in message
    write_rows(broken, "cola", "train", [{"text": "A text.", "label": 1}] * 20)
    assert "has no column 'sentence'; it has text, label" in refused("task=glue/cola", f"data.root={broken}")
    write_rows(broken, "cola", "train", [{"sentence": None if i == 3 else "A text.", "label": 1} for i in range(20)])
    assert "1 of 20 rows of 'nyu-mll/glue/cola' have no text: rows 3." in refused(
        "task=glue/cola", f"data.root={broken}"
    )


def test_mistakes_in_models(refused, checkpoint, tmp_path):
    assert "needs a model of kind classifier" in refused("task=glue/cola", "model=pocket_language")
    folder = tmp_path / "without_pad"
    folder.mkdir()
    for file in checkpoint("roberta_base").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "tokenizer of 'without_pad' has no pad token" in refused("task=glue/cola", f"model.path={folder}")
    assert "matches no linear layer" in refused("task=glue/cola", "model.targets=[out_proj]")
    assert "rank 97 is larger than layer" in refused("task=glue/cola", "adapter.rank=97")
