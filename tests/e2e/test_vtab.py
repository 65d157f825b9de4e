"""VTAB-1K from the command to the record: real photographs, DINOv2's architectures, the pocket world, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from eva_bench import models
from eva_bench.assets.catalogue import load_rows
from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from pocket.datasets import vtab1k
from tests.conftest import method_names
from tests.contract.test_methods import EXPORTED
from tests.vision import PIXELS, load_vit, some_pixels, write_vit

MAIN = ("full", "lora", "eva", "pissa", "olora", "sorsa", "svfit")
RATES = {"full": 1e-3, "svfit": 1e-2, "pissa": 1e-3, "olora": 1e-3, "sorsa": 1e-3}
QUIET = ["tracking=off", "threads=1"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Two small tasks in the archive's layout."""
    root = tmp_path_factory.mktemp("archive")
    for name in ("kitti", "clevr_count"):
        vtab1k.write(root, name, {"train": 24, "validation": 8, "test": 12})
    return root


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    base = tmp_path_factory.mktemp("vits")
    return {name: write_vit(name, base / name) for name in ("dinov2_s14", "dinov2_g14")}


def small(archive: Path, vit: dict, model: str) -> list[str]:
    """A run of two steps of the lite or paper recipe on a small checkpoint and a small archive."""
    scale = {"dinov2_s14": "lite", "dinov2_g14": "paper"}[model]
    return [
        f"scale={scale}",
        f"model.path={vit[model]}",
        f"data.root={archive}",
        "data.official_sizes=false",
        f"data.image_size={PIXELS}",
        "data.workers=0",
        "train.steps=2",
        "train.batch_size=8",
        "train.micro_batch_size=4",
        "calibration.batch_size=8",
        "eval.limit=6",
        "adapter.rank=4",
        *QUIET,
    ]


@pytest.mark.real
@pytest.mark.parametrize("method", MAIN)
def test_real_photographs_are_learnt(method, real_data, tmp_path, tmp_path_factory):
    runs = tmp_path_factory.getbasetemp() / "photographs"  # shared: the head before training is scored once
    spec = compose_spec(
        [
            f"method={method}",
            "task=vtab1k/caltech101",
            f"data.root={real_data / 'vtab-1k'}",
            "data.official_sizes=false",
            "train.steps=40",
            f"train.lr={RATES.get(method, 3e-3)}",
            *QUIET,
            f"results_dir={tmp_path}",
            f"runs_dir={runs}",
        ]
    )
    assert run_cell(spec) == 0
    record = Store(tmp_path).read(spec)
    assert record.data == {"rows": 1000, "classes": 101, "image_size": 32}
    assert record.metrics["samples"] == 212 and record.metrics_before["accuracy"] < 0.04
    assert record.metrics["accuracy"] > 0.06
    assert "officially 6084" in record.spec.identity.eval_data.deviation
    assert record.waited_s < 0.1 * record.costs["train"].seconds
    assert str(real_data) not in record.model_dump_json()


@pytest.mark.parametrize("method", method_names())
def test_dinov2_two_steps_evaluation_record_and_export(method, archive, vit, tmp_path, places):
    model = ("dinov2_g14", "dinov2_s14")[method_names().index(method) % 2]
    arguments = [f"method={method}", "task=vtab1k/kitti", "train.lr=1e-3", *small(archive, vit, model), *places]
    spec = compose_spec([*arguments, "train.precision=float32"] if method != "lora" else arguments)  # lora: bf16
    assert run_cell(spec) == 0
    record = Store(tmp_path / "results").read(spec)
    assert (record.status, record.steps, record.metrics["samples"]) == ("ok", 2, 6)
    names = {"accuracy", "reference_loss", "samples", "majority", "constant_loss"}
    assert record.metrics.keys() == record.metrics_before.keys() == names
    assert record.metrics["reference_loss"] != record.metrics_before["reference_loss"]
    assert record.data["rows"] == 32  # train800val200 at stage=final
    if "eva" in method:
        assert set(record.ranks) <= set(load_vit(model, vit[model]).targets) and record.ranks
    folder = tmp_path / "runs" / spec.run_id
    if method not in EXPORTED:
        assert (folder / "model" / "model.safetensors").is_file()
        return
    untouched = load_vit(model, vit[model], outputs=4)
    x = some_pixels(untouched)
    with torch.no_grad():
        before = untouched.module(x)
        assert (PeftModel.from_pretrained(untouched.module, folder / "adapter").eval()(x) - before).abs().max() > 1e-4


def test_the_trained_model_answers_as_recorded_from_its_exported_adapter(tmp_path, places):
    spec = compose_spec(
        ["method=eva", "task=vtab1k/cifar100", "train.steps=40", "stage=tune", "eval.limit=100", *QUIET, *places]
    )
    assert run_cell(spec) == 0
    record = Store(tmp_path / "results").read(spec)
    assert record.metrics["accuracy"] > record.metrics_before["accuracy"] + 0.1
    assert sum(record.ranks.values()) == 24 * 8 and len(set(record.ranks.values())) > 1
    bundle = models.load(spec.model, spec.data, "cpu", 100)
    module = PeftModel.from_pretrained(bundle.module, tmp_path / "runs" / spec.run_id / "adapter").eval()
    rows = load_rows("pocket/vtab1k/cifar100", "validation")[:100]
    pixels = torch.stack([torch.from_numpy(row["image"]).permute(2, 0, 1) for row in rows])
    with torch.no_grad():
        predictions = module(bundle.processor.normalise(pixels)).argmax(1).tolist()
    samples = [
        json.loads(line) for line in (tmp_path / "runs" / spec.run_id / "samples.jsonl").read_text().splitlines()
    ]
    agree = sum(s["prediction"] == p for s, p in zip(samples, predictions, strict=True))
    assert agree >= 99  # rounding may turn a tie


def _line(folder: Path, name: str, index: int, text: str) -> None:
    lines = (folder / name).read_text().splitlines()
    lines[index] = text
    (folder / name).write_text("\n".join(lines) + "\n")


def _break(kind: str, folder: Path) -> None:
    if kind == "no folder":
        shutil.rmtree(folder)
    elif kind == "no list":
        (folder / "test.txt").unlink()
    elif kind == "missing image":
        (folder / "images/train/000003.png").unlink()
    elif kind == "no image":
        (folder / "images/test/000002.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    elif kind == "class":
        _line(folder, "val200.txt", 1, "images/validation/000001.png 4")
        _line(folder, "train800val200.txt", 25, "images/validation/000001.png 4")
    elif kind == "line":
        _line(folder, "train800.txt", 2, "images/train/000002.png")
    elif kind == "odd class":
        _line(folder, "train800.txt", 2, "images/train/000002.png ²")
    elif kind == "encoding":
        (folder / "train800.txt").write_bytes(b"\xff\xfe images")
    elif kind == "checksums":
        (folder / "checksums.json").write_text("[]")


@pytest.mark.parametrize(
    ("kind", "extra", "expected"),
    [
        ("no folder", (), ("data.root has no folder 'kitti'", "vtab-1k.zip", "make fetch TASK=vtab1k")),
        ("no list", (), ("kitti", "has no test.txt")),
        ("missing image", (), ("kitti/train800.txt line 4", "images/train/000003.png", "not there")),
        ("no image", (), ("kitti/images/test/000002.png", "cannot be decoded")),
        ("class", (), ("kitti/val200.txt line 2", "class 4", "outside 0 to 3")),
        ("line", (), ("kitti/train800.txt line 3", "expected '<image> <class>'")),
        ("odd class", (), ("kitti/train800.txt line 3", "expected '<image> <class>'")),
        ("encoding", (), ("kitti/train800.txt is not text in UTF-8",)),
        ("checksums", (), ("'kitti/checksums.json' is damaged",)),
        (
            "nothing",
            ("data.official_sizes=true",),
            ("train800.txt has 24 images, officially 800", "data.official_sizes=false"),
        ),
        ("nothing", ("data.image_size=43",), ("data.image_size=43", "multiple of 14")),
        ("nothing", ("data.normalisation=zero",), ("data.normalisation=zero", "imagenet, half, model")),
        ("nothing", ("model=pocket_language", "model.path=pocket:language"), ("needs a model of kind vision",)),
        ("nothing", ("adapter.rank=40",), ("rank 40 is larger than layer 'blocks.0.attn.qkv.q' (32x32)",)),
    ],
)
def test_bad_input_is_one_sentence_before_training(kind, extra, expected, archive, vit, tmp_path, places, command):
    root = tmp_path / "copy"
    shutil.copytree(archive, root)
    _break(kind, root / "kitti")
    code, out, err = command("method=lora", "task=vtab1k/kitti", *small(root, vit, "dinov2_s14"), *extra, *places)
    assert code == 2, err
    assert "Traceback" not in out + err and "\ntraining:" not in err + out
    sentence = next(line for line in err.splitlines() if line.startswith("error: "))
    assert all(text in sentence for text in expected), sentence
    assert str(tmp_path) not in sentence
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_checkpoint_without_some_weights_is_refused(archive, vit, tmp_path, places, command):
    from safetensors.torch import load_file, save_file

    shutil.copytree(vit["dinov2_s14"], tmp_path / "vit")
    weights = load_file(tmp_path / "vit/model.safetensors")
    del weights["blocks.1.mlp.fc2.weight"]
    save_file(weights, tmp_path / "vit/model.safetensors")
    arguments = [a for a in small(archive, vit, "dinov2_s14") if not a.startswith("model.path")]
    code, _, err = command("method=lora", "task=vtab1k/kitti", *arguments, f"model.path={tmp_path / 'vit'}", *places)
    assert code == 2 and "blocks.1.mlp.fc2.weight" in err
