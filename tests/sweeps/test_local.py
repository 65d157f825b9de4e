"""Several processes on one machine: every cell once, threads divided, one Ctrl-C stops all of them well."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from eva_bench.records.store import Store
from eva_bench.sweeps.worker import read_cells
from tests.conftest import ROOT
from tests.forked import Command

LOCAL = ["suite=smoke", "hydra/launcher=local", "train.lr=1e-3"]  # a tuned rate would be too much for a random model


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "run.py", *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_two_processes_share_the_cells(small_run, places, tmp_path):
    other = tmp_path / "runs/sweeps/smoke/process-0.log"  # of another sweep, which may still be writing there
    other.parent.mkdir(parents=True)
    other.write_text("of another sweep\n")
    process = start(*LOCAL, "method=lora,pissa,olora", *small_run, *places, "threads=4")
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and "3 cells: 3 ok" in out and out.count("] ok: gsm8k-") == 3, out
    assert "process 1: 2 threads" in out
    logs = [path.read_text() for path in sorted((tmp_path / "runs/sweeps/smoke").glob("process-*.log"))]
    assert logs[0].startswith("of another sweep\n")
    # a cell that the other one just finished is shown, too
    assert sum(log.count("initialised in") for log in logs) == 3
    assert {record.hardware["threads"] for record in Store(tmp_path / "results").read_all()} == {2}


def test_ctrl_c_ends_all_processes_with_records_and_the_command_continues(small_run, places, tmp_path):
    usual = [item for item in small_run if "steps" not in item]
    arguments = [*LOCAL, "method=lora,pissa", *usual, *places]
    process = start(*arguments, "train.steps=100000")
    folder = tmp_path / "runs/sweeps/smoke"
    deadline = time.monotonic() + 100
    while len(list((tmp_path / "results/claims").glob("train-*"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1)
    (cells,) = folder.glob("cells-local-*.jsonl")
    assert len(read_cells(cells)) == 2
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command continues" in out and "Traceback" not in out, out
    assert [record.status for record in Store(tmp_path / "results").read_all()] == ["interrupted"] * 2
    assert not list((tmp_path / "results/claims").iterdir())


def test_a_sweep_in_one_process_stops_at_a_signal(small_run, places, tmp_path):
    usual = [item for item in small_run if "steps" not in item]
    sweep = Command(["suite=smoke", "method=lora,pissa", "train.steps=100000", *usual, *places], tmp_path / "out.txt")
    sweep.wait_for("\ntraining: ")
    sweep.send(signal.SIGTERM)
    assert sweep.end() == 130
    records = Store(tmp_path / "results").read_all()
    assert [record.status for record in records] == ["interrupted"]  # the second never began
