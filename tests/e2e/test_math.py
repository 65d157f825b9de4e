"""MATH through whole runs: one training for gsm8k and math, the hub's layout, the scores in the record, bad input."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eva_bench.assets.catalogue import entry, load_rows
from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_spec
from eva_bench.system.errors import UserError
from eva_bench.task import Task
from pocket.datasets import math
from tests.e2e.conftest import SHORT_RUN

METHODS = ("full", "lora", "eva", "pissa", "olora", "sorsa", "svfit")


@pytest.fixture(scope="module")
def math_mirror(mirror):
    """The mirror of data sets with MATH beside the others, a file per subject and split."""
    for part in entry("EleutherAI/hendrycks_math")["parts"]:
        subject = part.rsplit("/", 1)[1]
        for split, facts in entry(part)["splits"].items():
            path = mirror / "EleutherAI/hendrycks_math" / facts["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [row | {"type": subject} for row in math.generate(split)[:3]]
            pq.write_table(pa.Table.from_pylist(rows), path)
    return mirror


@pytest.mark.parametrize(
    ("scale", "methods"), [("pocket", METHODS), ("lite", ("full", "lora")), ("paper", ("full", "lora"))]
)
def test_both_tasks_are_one_training(scale, methods, math_mirror, checkpoint, tmp_path):
    root = [f"data.root={math_mirror}"] if scale != "pocket" else []
    model = [f"model.path={checkpoint('smollm2_135m')}"] if scale != "pocket" else []
    for method in methods:
        settings = [f"method={method}", f"scale={scale}", f"runs_dir={tmp_path}", *root, *model]
        first, second = (compose_spec([f"task={task}", *settings]) for task in ("gsm8k", "math"))
        assert first.train_id == second.train_id and first.run_id != second.run_id


def test_the_second_task_takes_the_adapter_of_the_first(checkpoint, tmp_path, places):
    common = ["method=lora", f"model.path={checkpoint('smollm2_135m')}", *SHORT_RUN, *places]
    records = {}
    for task in ("gsm8k", "math"):
        spec = compose_spec([f"task={task}", *common])
        assert run_cell(spec) == 0
        records[task] = Store(tmp_path / "results").read(spec)
    assert [records[task].reused["train"] for task in ("gsm8k", "math")] == [False, True]
    assert records["gsm8k"].curve == records["math"].curve
    assert len(list((tmp_path / "runs/cache/train").glob("*.safetensors"))) == 1
    metrics = records["math"].metrics
    assert {"exact_match", "math_verify", "unanswered", "reference_loss"} <= metrics.keys()
    assert any(name.startswith("subject/") for name in metrics) and any(name.startswith("level/") for name in metrics)


def test_math_in_the_layout_of_its_hub_copy(math_mirror, checkpoint, tmp_path, places):
    spec = compose_spec(
        [
            "method=lora",
            "task=math",
            "scale=lite",
            f"model.path={checkpoint('smollm2_135m')}",
            f"data.root={math_mirror}",
            *SHORT_RUN,
            "train.precision=float32",
            *places,
        ]
    )
    assert run_cell(spec) == 0
    samples = (tmp_path / "runs" / spec.run_id / "samples.jsonl").read_text().splitlines()
    assert all({"subject", "level", "target", "answer", "response"} <= json.loads(line).keys() for line in samples)
    rows = load_rows("EleutherAI/hendrycks_math", "test", str(math_mirror))
    assert len(rows) == 21 and len({row["type"] for row in rows}) == 7


def test_rows_without_a_boxed_answer_are_named():
    task = build(compose_spec(["method=lora", "task=math"]).task, Task)
    rows = math.generate("test")[:3]
    rows[1]["solution"] = "The answer is 5."
    with pytest.raises(UserError, match=r"1 of 3 rows of 'pocket/math' have no answer: rows 1\."):
        task.texts(rows, "pocket/math")


def test_without_the_files_the_subjects_that_are_absent_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"EleutherAI/hendrycks_math/algebra.*make fetch DATA=EleutherAI/hendrycks_math"
    ):
        load_rows("EleutherAI/hendrycks_math", "test", str(tmp_path))
