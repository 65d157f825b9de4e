"""What lite and paper scale need: awkward rows, rates nobody published, memory, GPUs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eva_bench.methods.layer import Adapter, Factors
from eva_bench.models import decision
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.recomputation import recomputed
from eva_bench.reporting.archive import Run
from eva_bench.reporting.rates import badness
from eva_bench.run import evaluate, memory, train
from eva_bench.settings.compose import compose_settings
from eva_bench.sweeps import local
from eva_bench.system.errors import UserError
from eva_bench.system.meter import Cost
from tasks.glue_metrics import glue_scores
from tasks.samples import answer_rows
from tests.conftest import tiny_llama
from tests.control import tiny_model, trajectories, write_decision
from tests.records import make_spec, record
from tests.settings import data_settings
from tests.vision import load_vit, some_pixels, write_vit

LLAMA = "method=lora task=gsm8k scale=paper"


def settings(line: str) -> dict:
    return compose_settings(line.split())["settings"]


def sample(label: int, prediction: int, part: str | None = None) -> dict:
    return {"label": label, "prediction": prediction, "outputs": [0.0, 0.0, 1.0], "truncated": False, "part": part}


def test_rows_held_out_from_mnli_count_as_matched():
    scores = glue_scores([sample(1, 1), sample(2, 1)], ["accuracy_matched", "accuracy_mismatched"], regression=False)
    assert scores["accuracy_matched"] == 0.5 and "accuracy_mismatched" not in scores


def test_a_learning_rate_is_never_chosen_by_a_metric_that_is_no_number():
    bad = record(
        "lora", 1, run_id="lora-1", metrics={"reference_loss": math.nan}, spec={"task": {"primary": "accuracy"}}
    )
    with pytest.raises(UserError, match="'lora-1' has no number for reference_loss"):
        badness(bad)


def test_the_order_of_an_epoch_is_drawn_once():
    train.epoch_order.cache_clear()
    batches = [train.batch_indices(step, 8, 100, seed=1) for step in range(12)]
    assert train.epoch_order.cache_info().misses == 1
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == 96 and batches[3] == train.batch_indices(3, 8, 100, seed=1)


@pytest.mark.parametrize("scale", ["lite", "paper"])
@pytest.mark.parametrize(
    "cell", ["svfit commonsense", "sorsa commonsense", "full commonsense", "sorsa vtab1k/dtd", "svfit metaworld/push"]
)
def test_a_rate_that_nobody_published_is_asked_for(scale, cell):
    method, task = cell.split()
    with pytest.raises(UserError, match=f"No learning rate of '{method}' is published for"):
        settings(f"method={method} task={task} scale={scale}")
    assert settings(f"method={method} task={task} scale={scale} train.lr=1e-4")["train"]["lr"] == 1e-4


@pytest.mark.parametrize(
    ("method", "task", "lr"),
    [("full", "vtab1k/dtd", 4e-5), ("full", "metaworld/push", 1e-4), ("svfit", "vtab1k/dtd", 5e-3)],
)
def test_other_rates_are_published_ones_and_not_loras(method, task, lr):
    assert settings(f"method={method} task={task} scale=paper")["train"]["lr"] == lr


def test_the_papers_values_for_control():
    chosen = settings("method=eva task=metaworld/push scale=paper")
    assert (chosen["adapter"]["rank"], chosen["adapter"]["alpha"]) == (4, 1)
    wide = settings("method=eva task=metaworld/push scale=paper recipe=paper/metaworld_blocks")
    assert wide["adapter"]["rank"] == 16 and "action_head" not in wide["model"]["targets"]


@pytest.mark.parametrize("rank", [2, 4, 8, 16, 32])
def test_the_authors_compute_32_components_of_images_whatever_the_rank(rank):
    method = settings(f"method=eva task=vtab1k/dtd scale=paper adapter.rank={rank}")["method"]
    assert method["rank"] * method["rho"] == 32
    assert settings("method=eva task=vtab1k/dtd scale=paper method.rho=1")["method"]["rho"] == 1


def test_every_local_process_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert local.visible_devices(tmp_path) == ["0", "1", "2"]
    monkeypatch.setattr(local, "visible_devices", lambda: ["0", "1", "2"])
    assert [local.worker_environment(n)["CUDA_VISIBLE_DEVICES"] for n in range(4)] == ["0", "1", "2", "0"]


def test_devices_that_the_environment_names_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [local.worker_environment(n)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["4", "7", "4"]


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


@pytest.mark.parametrize("kind", ["llama", "vision", "decision"])
def test_gradient_checkpointing_recomputes_blocks_and_changes_no_gradient(kind, tmp_path):
    torch.manual_seed(0)
    if kind == "llama":
        module, inputs = tiny_llama(), {"input_ids": torch.randint(3, 60, (2, 9))}
    elif kind == "vision":
        bundle = load_vit("dinov2_s14", write_vit("dinov2_s14", tmp_path / "vit"))
        module, inputs = bundle.module, {"x": some_pixels(bundle)}
    else:
        row = trajectories(1, 4)[0]
        module = decision.load(tiny_model(write_decision(tmp_path / "dt")), data_settings()).module
        values = {
            "states": row["observations"],
            "returns": row["rewards"],
            "actions": row["actions"],
            "rewards": row["rewards"],
        }
        inputs = {name: torch.from_numpy(value)[None] for name, value in values.items()} | {
            "steps": torch.arange(4)[None]
        }
    module.train()
    kept: dict[bool, int] = {}
    gradients: dict[bool, dict[str, torch.Tensor]] = {}
    for wanted in (False, True):
        saved: list[int] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        )
        with recomputed(module, wanted):
            with hooks:
                output = module(**inputs)
                loss = (output if isinstance(output, torch.Tensor) else output.logits).square().sum()
            module.zero_grad()
            loss.backward()
        kept[wanted] = sum(saved)
        gradients[wanted] = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    assert kept[True] < 0.7 * kept[False]
    for name, gradient in gradients[False].items():
        assert torch.allclose(gradients[True][name], gradient, rtol=1e-6, atol=1e-6)


class Answers:
    """A task whose second chunk needs more memory than there is for a batch of four."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def evaluate(self, bundle, evaluation):
        batch_size = evaluation.settings.batch_size

        def answer(chunk, first: int, answered) -> list[dict]:
            self.asked.append((first, batch_size))
            if first and batch_size > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return [{"row": first + i, "answer": row} for i, row in enumerate(chunk)]

        file, chunk = evaluation.samples_file, evaluation.settings.chunk
        return answer_rows(evaluation.rows, file, chunk, answer, evaluation.progress)


def test_an_evaluation_that_runs_out_of_memory_goes_on_after_the_last_answers(tmp_path):
    task, bundle = Answers(), ModelBundle(tiny_llama(), None, (), "language")
    spec = make_spec({"eval": {"batch_size": 4, "chunk": 3}})
    samples = evaluate.answers(
        task, bundle, list(range(7)), "x", spec, tmp_path / "samples.jsonl", lambda done, total: None
    )
    assert [sample["answer"] for sample in samples] == list(range(7))
    assert task.asked == [(0, 4), (3, 4), (3, 2), (6, 2)]  # the first chunk is not answered again


def test_evaluation_in_bf16_is_an_option_and_float32_the_rule(tmp_path):
    seen = []

    class Looks(Answers):
        def evaluate(self, *arguments):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().evaluate(*arguments)

    bundle = ModelBundle(tiny_llama(), None, (), "language")
    for number, options in enumerate(({}, {"precision": "bf16"})):
        spec = make_spec({"eval": options})
        evaluate.answers(Looks(), bundle, [1], "x", spec, tmp_path / f"{number}.jsonl", lambda done, total: None)
    assert seen == [False, True]
    assert settings(f"{LLAMA} eval.precision=bf16")["eval"]["precision"] == "bf16"
