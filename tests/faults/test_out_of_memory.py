"""Where memory runs out the micro-batch is halved; the numbers are those of a run that began with the smaller one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from tasks.language import LanguageTask

BATCH = ["train.batch_size=8", "train.steps=3"]


@pytest.fixture
def memory(monkeypatch):
    """A function that sets how many examples of training fit into memory at once."""
    loss = LanguageTask.loss

    def fits(most: int, error: Exception, from_call: int = 0) -> list[int]:
        sizes: list[int] = []

        def limited(self, module, batch):
            result = loss(self, module, batch)  # the failed attempt leaves gradients and random numbers behind
            if torch.is_grad_enabled():
                torch.rand(3)
                sizes.append(len(batch["input_ids"]))
                if sizes[-1] > most and len(sizes) > from_call:
                    raise error
            return result

        monkeypatch.setattr(LanguageTask, "loss", limited)
        return sizes

    yield fits


def run(tmp_path, name: str, *arguments: str):
    spec = compose_spec(
        ["method=lora", "task=gsm8k", *arguments, f"results_dir={tmp_path / name}", f"runs_dir={tmp_path / name}"]
    )
    code = run_cell(spec)
    record = Store(tmp_path / name).read(spec)
    adapter = tmp_path / name / spec.run_id / "adapter/adapter_model.safetensors"
    return code, record, load_file(adapter) if adapter.exists() else None


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_the_micro_batch_is_halved_and_the_effective_batch_kept(error, memory, small_run, tmp_path, capfd):
    usual = [item for item in small_run if "batch_size" not in item or "calibration" in item]
    sizes = memory(2, error)
    code, record, adapter = run(tmp_path, "short", *usual, *BATCH, "train.micro_batch_size=8")
    assert code == 0 and sizes == [8, 4] + [2] * 12  # two failed attempts in the first step, none later
    assert (record.micro_batch_size, record.spec.train.micro_batch_size, record.steps) == (2, 8, 3)
    assert capfd.readouterr().err.count("out of memory: the step is repeated with train.micro_batch_size=") == 2

    memory(2, error)
    _, small, same = run(tmp_path, "small", *usual, *BATCH, "train.micro_batch_size=2")
    assert small.micro_batch_size == 2 and small.curve == record.curve
    assert all(torch.equal(adapter[name], same[name]) for name in same)


def test_memory_that_runs_out_later_halves_from_there_on(memory, small_run, tmp_path):
    usual = [item for item in small_run if "batch_size" not in item or "calibration" in item]
    sizes = memory(4, RuntimeError("out of memory"), from_call=2)
    code, record, _ = run(tmp_path, "later", *usual, *BATCH, "train.micro_batch_size=8")
    assert code == 0 and sizes == [8, 8, 8, 4, 4] and record.micro_batch_size == 4


def test_one_example_that_does_not_fit_is_a_failed_record(memory, small_run, tmp_path):
    usual = [item for item in small_run if "batch_size" not in item or "calibration" in item]
    memory(0, RuntimeError("CUDA out of memory"))
    code, record, _ = run(tmp_path, "none", *usual, *BATCH, "train.micro_batch_size=2")
    assert code == 1 and record.status == "failed" and "out of memory" in record.error


def test_another_error_is_not_taken_for_memory(memory, small_run, tmp_path):
    usual = [item for item in small_run if "batch_size" not in item or "calibration" in item]
    sizes = memory(0, RuntimeError("shapes do not fit"))
    code, record, _ = run(tmp_path, "other", *usual, *BATCH, "train.micro_batch_size=2")
    assert code == 1 and "shapes do not fit" in record.error and len(sizes) == 1
