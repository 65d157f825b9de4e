"""A run in two processes is the run in one: the same losses, answers and score, and one record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eva_bench.records.record import Record, load_record
from tests.conftest import ROOT

SHORT = ["task=gsm8k", "train.steps=3", "train.batch_size=8", "train.micro_batch_size=4", "calibration.batch_size=8",
         "eval.limit=5", "eval.max_new_tokens=12", "eval.batch_size=4", "tracking=off", "threads=1"]  # fmt: skip


def run(folder: Path, processes: int, *arguments: str) -> tuple[Record, list[dict]]:
    """The record and the samples of a run in so many processes."""
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes), "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"] if processes > 1 else []
    places = [f"results_dir={folder / 'results'}", f"runs_dir={folder / 'runs'}"]
    command = [sys.executable, *(launch if processes > 1 else []), "run.py", *SHORT, *arguments, *places]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    (file,) = (folder / "results").rglob("*.json")
    record = load_record(file.read_text())
    lines = (folder / "runs" / record.run_id / "samples.jsonl").read_text().splitlines()
    return record, [json.loads(line) for line in lines]


@pytest.mark.parametrize("method", ["lora", "eva"])
def test_two_processes_give_the_curve_the_answers_and_the_score_of_one(method, tmp_path):
    batches = ["method.max_batches=2", "method.min_batches=2"] if method == "eva" else []  # of all processes together
    alone, answers = run(tmp_path / "one", 1, f"method={method}", *batches)
    both, shared = run(tmp_path / "two", 2, f"method={method}", *batches)
    assert both.status == "ok" and both.run_id == alone.run_id
    assert [sample["row"] for sample in shared] == [0, 1, 2, 3, 4]
    assert shared == answers
    for first, second in zip(alone.curve, both.curve, strict=True):
        assert first == pytest.approx(second, rel=1e-4)
        assert first[1] == pytest.approx(second[1], rel=1e-5)
    assert both.metrics == pytest.approx(alone.metrics, abs=1e-5)
    assert both.metrics_before == pytest.approx(alone.metrics_before, abs=1e-5)
    if method == "eva":
        assert both.initialisation["rows"] == alone.initialisation["rows"] and both.ranks == alone.ranks
