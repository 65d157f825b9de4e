"""The check of a GPU, rehearsed with tiny shapes on the CPU."""

from __future__ import annotations

import pytest
import torch

from eva_bench.eva import engine
from eva_bench.system.arguments import run_command
from perf import gpu_check


def test_the_rehearsal_does_all_of_the_work_on_every_model(capsys):
    assert run_command(gpu_check.check, gpu_check.GpuCheck, ["shrink=true"]) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line]
    assert [line[0] for line in lines] == [model for model in gpu_check.MODELS for _ in range(6)]
    works = ["PiSSA initialisation", "EVA initialisation"]
    works += [f"{name}, {kind}" for kind in ("bf16", "float32") for name in ("2 training steps", "answers")]
    assert [line[1] for line in lines[:6]] == works
    assert all(float(line[2]) >= 0 and float(line[3]) > 0 for line in lines)
    assert all(line[4] and line[5] for line in lines if "initialisation" not in line[1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_the_rehearsal_is_named(capsys):
    assert run_command(gpu_check.check, gpu_check.GpuCheck, []) == 2
    assert "make gpu-check ARGS=shrink=true" in capsys.readouterr().err


def test_an_engine_that_differs_between_devices_is_noticed(monkeypatch):
    assert gpu_check.engine_overlap(torch.device("cpu")) == pytest.approx(1, abs=1e-5)
    calls, real = [], engine.StreamingSolver.take

    def take(self, leader, rows):
        calls.append(leader)
        real(self, leader, rows if calls.count(leader) <= 4 else rows.flip(-1))  # on the second device

    monkeypatch.setattr(engine.StreamingSolver, "take", take)
    assert gpu_check.engine_overlap(torch.device("cpu")) < gpu_check.OVERLAP


def test_where_memory_runs_out_the_row_says_so():
    def work():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    row = gpu_check._row("llama2_7b", "answers", work, planned=30_000_000_000)
    assert row["seconds"] == "out of memory" and row["plan, GB"] == "30.00" and row["peak, GB"] == ""
