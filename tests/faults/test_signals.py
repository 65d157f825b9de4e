"""Stopping before and after training too; SLURM's habits: SIGTERM twice, and a signal that belongs to submitit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baselines.lora import LoRA
from eva_bench.records.store import Store
from eva_bench.run import pipeline, train
from eva_bench.settings.compose import compose_spec
from eva_bench.sweeps.worker import Part, write_cells
from eva_bench.system.signals import Interrupted, StopSignal
from tasks import harness
from tests.conftest import ROOT

LORA = ["method=lora", "task=gsm8k"]


def raising(function, number=signal.SIGTERM, at: int = 1):
    """The function, which is interrupted by a signal in its `at`-th call."""
    calls = iter(range(1, 10**6))

    def interrupted(*arguments, **named):
        if next(calls) == at:
            signal.raise_signal(number)
        return function(*arguments, **named)

    return interrupted


@pytest.fixture
def undisturbed(command, small_run, tmp_path):
    places = [f"results_dir={tmp_path / 'other'}", f"runs_dir={tmp_path / 'other_runs'}"]
    assert command(*LORA, *small_run, *places, "eval.chunk=2")[0] == 0
    (record,) = Store(tmp_path / "other").read_all()
    return record, tmp_path / "other_runs" / record.run_id


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(pipeline.models, "load", 1), (LoRA, "initialise", 1), (harness, "_run_chunk", 2), (harness, "_run_chunk", 4),
     (pipeline, "export_adapter", 1)],
    ids=["load", "init", "eval-before", "eval-after", "export"],
)  # fmt: skip
def test_a_run_stopped_outside_training_continues_with_the_same_bytes(
    owner, name, at, undisturbed, command, small_run, places, monkeypatch, tmp_path
):
    arguments = [*LORA, *small_run, *places, "eval.chunk=2"]
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, raising(getattr(owner, name), at=at))
        assert command(*arguments)[0] == 130
    store = Store(tmp_path / "results")
    (record,) = store.read_all()
    assert record.status == "interrupted" and "SIGTERM" in record.error and not list(store.claims.iterdir())
    code, out, _ = command(*arguments)
    assert code == 0 and "recorded before" not in out  # what was recorded is an interruption: nothing to compare with
    (record,) = store.read_all()
    wanted, folder = undisturbed
    assert (record.status, record.metrics, record.metrics_before, record.curve) == (
        "ok",
        wanted.metrics,
        wanted.metrics_before,
        wanted.curve,
    )
    for file in ("adapter/adapter_model.safetensors", "samples.jsonl"):
        assert (tmp_path / "runs" / record.run_id / file).read_bytes() == (folder / file).read_bytes()


def test_only_a_second_ctrl_c_stops_in_the_middle_of_a_step():
    with StopSignal() as stop:
        stop.deferred = True
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.requested and stop.received == signal.SIGUSR1
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
        stop.deferred = False
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_the_signal_goes_to_its_owner_once_the_checkpoint_is_there(number, small_run, places, monkeypatch, tmp_path):
    """What submitit does with it: put the job into the queue again, and leave."""
    spec = compose_spec([*LORA, *small_run, *places, "train.steps=4"])
    write_cells(tmp_path / "cells.jsonl", [spec])
    seen = []

    def owner(received, frame):
        checkpoints = list((tmp_path / "runs/cache/train").glob("*.checkpoint"))
        seen.append((received, len(checkpoints), Store(tmp_path / "results").read(spec).status))

    monkeypatch.setattr(train, "_backward", raising(train._backward, number, at=2))
    previous = signal.signal(number, owner)
    try:
        with pytest.raises(SystemExit) as left:
            Part(str(tmp_path / "cells.jsonl"), 0, 1)()
    finally:
        signal.signal(number, previous)
    assert left.value.code == 130 and seen == [(number, 1, "interrupted")]
    monkeypatch.undo()
    assert Part(str(tmp_path / "cells.jsonl"), 0, 1)() == 0
    record = Store(tmp_path / "results").read(spec)
    assert (record.status, record.resumed, record.steps) == ("ok", 1, 4)
    assert Path(spec.where.runs_dir).is_dir()


def test_a_signal_while_python_cleans_up_does_not_change_the_exit_code():
    code = "import atexit, os, signal; from eva_bench.system.signals import leave\n"
    code += "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM)); leave(0)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
