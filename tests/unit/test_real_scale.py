"""What lite and paper scale need and the pocket scale never shows: awkward rows, rates nobody published, memory, GPUs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eva_bench.methods.layer import Adapter, Factors
from eva_bench.reporting.archive import Run
from eva_bench.run import memory, train
from eva_bench.settings.compose import compose_settings
from eva_bench.sweeps import execute, tune
from eva_bench.system.errors import UserError
from eva_bench.system.meter import Cost
from tasks.glue_metrics import glue_scores
from tests.conftest import tiny_llama
from tests.records import record

LLAMA = "method=lora task=gsm8k scale=paper"


def settings(line: str) -> dict:
    return compose_settings(line.split())["settings"]


def sample(label: int, prediction: int, part: str | None = None) -> dict:
    return {"label": label, "prediction": prediction, "outputs": [0.0, 0.0, 1.0], "truncated": False, "part": part}


def test_rows_held_out_from_mnli_count_as_matched():
    scores = glue_scores([sample(1, 1), sample(2, 1)], ["accuracy_matched", "accuracy_mismatched"], regression=False)
    assert scores["accuracy_matched"] == 0.5 and "accuracy_mismatched" not in scores


def test_a_learning_rate_is_never_chosen_by_a_metric_that_is_no_number():
    bad = record("lora", 1, run_id="lora-1", metrics={"accuracy": math.nan}, spec={"task": {"primary": "accuracy"}})
    with pytest.raises(UserError, match="'lora-1' has no number for accuracy"):
        tune.merit([bad])


def test_the_order_of_an_epoch_is_drawn_once():
    train.epoch_order.cache_clear()
    batches = [train.batch_indices(step, 8, 100, seed=1) for step in range(12)]
    assert train.epoch_order.cache_info().misses == 1
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == 96 and batches[3] == train.batch_indices(3, 8, 100, seed=1)


@pytest.mark.parametrize("scale", ["lite", "paper"])
@pytest.mark.parametrize("cell", ["svfit commonsense", "sorsa commonsense", "full commonsense", "sorsa vtab1k/dtd", "svfit metaworld/push"])
def test_a_rate_that_nobody_published_is_asked_for(scale, cell):
    method, task = cell.split()
    with pytest.raises(UserError, match=f"No learning rate of '{method}' is published for"):
        settings(f"method={method} task={task} scale={scale}")
    assert settings(f"method={method} task={task} scale={scale} train.lr=1e-4")["train"]["lr"] == 1e-4


@pytest.mark.parametrize(("method", "task", "lr"), [("full", "vtab1k/dtd", 4e-5), ("full", "metaworld/push", 1e-4), ("svfit", "vtab1k/dtd", 5e-3)])
def test_other_rates_are_published_ones_and_not_loras(method, task, lr):
    assert settings(f"method={method} task={task} scale=paper")["train"]["lr"] == lr


def test_methods_that_take_the_pretrained_weight_apart_do_not_decay_it():
    for task in ("vtab1k/dtd", "metaworld/push"):
        for scale in ("lite", "paper"):
            assert settings(f"method=lora task={task} scale={scale}")["train"]["weight_decay"] > 0
            for method in ("pissa", "olora"):
                assert settings(f"method={method} task={task} scale={scale}")["train"]["weight_decay"] == 0


def test_the_papers_values_for_control():
    chosen = settings("method=eva task=metaworld/push scale=paper")
    assert chosen["adapter"] == {"rank": 4, "alpha": 1}
    wide = settings("method=eva task=metaworld/push scale=paper recipe=paper/metaworld_blocks")
    assert wide["adapter"]["rank"] == 16 and "action_head" not in wide["model"]["targets"]


def test_every_local_process_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert execute.visible_devices(tmp_path) == ["0", "1", "2"]
    monkeypatch.setattr(execute, "visible_devices", lambda: ["0", "1", "2"])
    assert [execute.worker_environment(n)["CUDA_VISIBLE_DEVICES"] for n in range(4)] == ["0", "1", "2", "0"]


def test_devices_that_the_environment_names_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [execute.worker_environment(n)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["4", "7", "4"]


def run_of(*line: str) -> Run:
    return Run.of(record("lora", 1, origins={"command_line": list(line)}))


@pytest.mark.parametrize(
    ("line", "private"),
    [
        (["data.root=<path>"], set()),
        (["recipe=paper/glue_deberta/rte"], set()),
        (["recipe=paper/glue_deberta/rte", "tuned=paper/glue_deberta/rte/eva"], set()),
        (["recipe=paper/glue_deberta/rte", "tuned=null"], set()),
        (["tuned=paper/vtab1k_published/lora"], {"tuned"}),
        (["recipe=paper/glue_deberta/rte", "train.lr=1"], {"train.lr"}),
    ],
)
def test_committed_choices_are_no_private_experiments(line, private):
    assert run_of(*line).private_overrides == private


def test_a_tables_memory_is_the_devices_where_there_is_one():
    assert Cost(seconds=1, peak_bytes=5).memory_bytes == 5
    assert Cost(seconds=1, peak_bytes=5, device_peak_bytes=9).memory_bytes == 9


class Allocations(TorchDispatchMode):
    """Elements of every tensor that an operation makes on the device of the model: copies to the host do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.largest_copy = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function in (torch.ops.aten.clone.default,):
            self.largest_copy = max(self.largest_copy, arguments[0].numel())
        return function(*arguments, **(options or {}))


def test_merging_keeps_the_untouched_weights_on_the_host():
    module = tiny_llama()
    name = "model.layers.0.mlp.down_proj"
    layer = module.get_submodule(name)
    factors = Factors(torch.ones(2, layer.in_features), torch.ones(layer.out_features, 2))
    adapter, before = Adapter.install(module, {name: factors}, trained=("A", "B")), layer.weight.clone()
    with Allocations() as seen, adapter.merged():
        assert seen.largest_copy < layer.weight.numel()
        assert adapter.layers[name].merged_weight.device.type == "cpu"
        assert not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight, before)


def test_evaluation_halves_its_batch_where_memory_runs_out(capsys):
    tried = []

    def action(size: int) -> str:
        tried.append(size)
        if size > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return "done"

    assert memory.in_halves(action, 16, "eval.batch_size") == ("done", 4)
    assert tried == [16, 8, 4] and "eval.batch_size=4" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="another"):
        memory.in_halves(lambda size: (_ for _ in ()).throw(RuntimeError("another")), 4, "x")
