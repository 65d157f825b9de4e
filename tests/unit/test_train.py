"""The training loop: same gradient however a batch is cut, exact resume, every row once an epoch."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import find_targets
from eva_bench.records.record import thin
from eva_bench.run import train
from eva_bench.system.errors import NonFiniteLoss
from eva_bench.system.signals import Interrupted, StopSignal
from tests.conftest import method_values, tiny_llama
from tests.settings import make_method, make_task, train_settings

SETTINGS = {"steps": 6, "schedule": "cosine", "warmup_ratio": 0.3, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def task():
    return make_task(
        {
            "_target_": "tasks.gsm8k.GSM8K",
            "name": "gsm8k",
            "family": "math",
            "primary": "x",
            "dataset": "openai/gsm8k",
            "pocket": "pocket/gsm8k",
            "harness": "gsm8k",
            "format": {},
            "eval_prompt": "",
        }
    )


@pytest.fixture(scope="module")
def examples():
    """Answers of very different lengths: a mean per forward pass would weigh their tokens wrongly."""
    generator = torch.Generator().manual_seed(2)
    rows = []
    for index in range(20):
        ids = torch.randint(3, 60, (6 + 3 * (index % 7),), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * 4 + ids[4:]})
    return rows


class Pads:
    pad_token_id = 0


def fit(task, examples, file, method_name="lora", dropout=0.0, **changes):
    stop, progress = changes.pop("stop", None), changes.pop("progress", lambda *_: None)
    after_epoch = changes.pop("after_epoch", None)
    module = tiny_llama()
    for layer in module.model.layers:
        layer.self_attn.attention_dropout = dropout
    bundle = ModelBundle(module, Pads(), find_targets(module, ["q_proj", "down_proj"]), "language")
    method = make_method(method_values(method_name))
    adapter = method.attach(bundle, None, 0)
    result = train.fit(
        bundle,
        adapter,
        method,
        task,
        examples,
        train_settings(**SETTINGS | changes),
        0,
        checkpoint_file=file,
        stop=stop,
        progress=progress,
        after_epoch=after_epoch,
    )
    return adapter.state_dict(), result


@pytest.mark.parametrize("method", ["lora", "sorsa"])
def test_one_batch_of_eight_is_eight_batches_of_one(method, task, examples, tmp_path):
    whole, first = fit(task, examples, tmp_path / "a", method)
    for size in (1, 4):
        cut, second = fit(task, examples, tmp_path / f"b{size}", method, micro_batch_size=size)
        assert all(torch.allclose(whole[key], cut[key], atol=1e-5) for key in whole)
        assert torch.allclose(torch.tensor(first.curve), torch.tensor(second.curve), rtol=1e-3)
    assert (
        first.tokens
        == second.tokens
        == sum(task.loss_count(examples[i]) for step in range(6) for i in train.batch_indices(step, 8, 20, 0))
    )


class StopAfter:
    """Asks for a stop at one step, as Ctrl-C during that step would."""

    def __init__(self, step):
        self.signal, self.step = StopSignal(), step

    def __call__(self, done, total, note):
        self.signal.requested = done == self.step


@pytest.mark.parametrize("at", [1, 4])
def test_stopping_and_continuing_is_the_straight_run_bit_for_bit(at, task, examples, tmp_path):
    straight, result = fit(task, examples, tmp_path / "straight", dropout=0.1)
    stop = StopAfter(at)
    with pytest.raises(Interrupted, match="of 6"):
        fit(task, examples, tmp_path / "cut", dropout=0.1, stop=stop.signal, progress=stop)
    torch.manual_seed(999)  # the new process knows nothing of the old one's random state
    continued, second = fit(task, examples, tmp_path / "cut", dropout=0.1)
    assert all(torch.equal(straight[key], continued[key]) for key in straight)
    assert second.curve == result.curve and (second.steps, second.tokens) == (result.steps, result.tokens)
    assert (result.resumed, second.resumed) == (0, 1)


def test_an_unreadable_checkpoint_means_a_fresh_start(task, examples, tmp_path, capsys):
    straight, _ = fit(task, examples, tmp_path / "none")
    (tmp_path / "broken").write_bytes(b"PK\x03\x04 half a file")
    again, result = fit(task, examples, tmp_path / "broken")
    assert "broken cannot be read" in capsys.readouterr().err and result.resumed == 0
    assert all(torch.equal(straight[key], again[key]) for key in straight)


def test_a_loss_that_is_not_finite_names_its_step(task, examples, tmp_path):
    class Spoilt(type(task)):
        def loss(self, module, batch):
            self.calls.append(1)
            value, count = super().loss(module, batch)
            return (value * math.inf if len(self.calls) == 3 else value), count

    spoilt = object.__new__(Spoilt)
    object.__setattr__(spoilt, "calls", [])
    with pytest.raises(NonFiniteLoss, match="at step 3") as failure:
        fit(spoilt, examples, tmp_path / "c")
    assert failure.value.step == 3


@pytest.mark.parametrize(("n", "batch"), [(20, 8), (7, 7), (5, 12), (1, 3)])
def test_batches_take_every_row_once_an_epoch(n, batch):
    stream = [i for step in range(3 * n) for i in train.batch_indices(step, batch, n, seed=4)]
    for epoch in range(len(stream) // n):
        assert Counter(stream[epoch * n : (epoch + 1) * n]) == Counter(range(n))
    assert train.batch_indices(2, batch, n, 4) == stream[2 * batch : 3 * batch]  # a pure function of the step
    if n > 5:
        assert (
            stream[:n] != stream[n : 2 * n]
            and stream[:n] != [i for step in range(3 * n) for i in train.batch_indices(step, batch, n, seed=5)][:n]
        )


def test_schedules_by_hand():
    def factors(schedule, warmup):
        return [round(train.learning_rate_factor(step, 10, schedule, warmup), 4) for step in range(10)]

    assert factors("constant", 0.0) == [1.0] * 10
    assert factors("linear", 0.2) == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    cosine = factors("cosine", 0.0)
    assert cosine[0] == 1.0 and cosine[5] == 0.5 and cosine == sorted(cosine, reverse=True) and cosine[-1] > 0
    assert train.learning_rate_factor(0, 1, "linear", 0.03) == 1.0  # a single step still learns


def test_length_of_training():
    assert train.total_steps(train_settings(steps=7, epochs=3), 100) == 7
    assert train.total_steps(train_settings(steps=None, epochs=3), 100) == 38
    assert train.total_steps(train_settings(steps=None, epochs=0.01), 100) == 1


def test_thinning_keeps_the_first_steps_and_the_last():
    curve = [(step, 0.0, 0.0, 0.0) for step in range(1, 1001)]
    short = thin(curve, 200)
    assert len(short) <= 200 and short[:50] == curve[:50] and short[-1] == curve[-1]
    assert thin(curve[:150], 200) == curve[:150]


def test_scoring_after_epochs_changes_nothing_and_is_kept(task, examples, tmp_path):
    """20 examples in batches of 8: epochs end with steps 3 (24 examples), 5 (40); the last step is scored elsewhere."""
    straight, _ = fit(task, examples, tmp_path / "a", dropout=0.3)

    def after_epoch(step):
        torch.rand(7)  # an evaluation may draw random numbers
        return {"score": step / 10}

    scored, result = fit(task, examples, tmp_path / "b", dropout=0.3, after_epoch=after_epoch)
    assert result.epochs == [{"step": 3, "score": 0.3}, {"step": 5, "score": 0.5}]
    assert all(torch.equal(straight[name], scored[name]) for name in straight)


@pytest.mark.parametrize("method", ["lora", "eva_dora", "full"])
def test_another_learning_rate_for_b_is_for_b_alone(method):
    bundle = ModelBundle(tiny_llama(), Pads(), ("model.layers.0.self_attn.q_proj",), "language")
    batches = [
        {"input_ids": torch.randint(3, 60, (8, 12), generator=torch.Generator().manual_seed(n))} for n in range(8)
    ]
    method = make_method(method_values(method))
    adapter = method.attach(bundle, batches, 0)
    groups = method.parameter_groups(adapter, train_settings(lr=1e-3, weight_decay=0.1, lr_ratio=16))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in adapter.trained().items():
        assert rates[id(parameter)] == pytest.approx(16e-3 if name.endswith("q_proj.B") else 1e-3), name
    assert len(rates) == len(adapter.trained())


@pytest.mark.parametrize(("method", "everything"), [("pissa", None), ("pissa", True), ("lora", None)])
def test_decay_shrinks_factors_unless_they_hold_a_part_of_the_pretrained_weight(
    task, examples, tmp_path, method, everything
):
    """At so small a rate gradients do nothing; decay multiplies by 1 - lr * decay a step."""
    module = tiny_llama()
    bundle = ModelBundle(module, Pads(), find_targets(module, ["q_proj"]), "language")
    method = make_method(method_values(method))
    adapter = method.attach(bundle, None, 0)
    before = {name: layer.A.detach().clone() for name, layer in adapter.layers.items()}
    settings = {"lr": 1e-9, "weight_decay": 1e7, "schedule": "constant", "warmup_ratio": 0.0, "steps": 1}
    settings = train_settings(**(SETTINGS | settings | {"decay_all_factors": everything}))
    train.fit(bundle, adapter, method, task, examples, settings, 0, checkpoint_file=tmp_path / "checkpoint")
    shrinks = everything or not method.reduces_base
    for name, layer in adapter.layers.items():
        assert torch.allclose(layer.A, before[name] * (0.99 if shrinks else 1.0), atol=1e-6)


def test_the_gradient_scaler_of_fp16_comes_back_from_a_checkpoint(task, examples, tmp_path):
    """fp16 trains on a GPU only; here a scaler that has met two overflows is saved and read back."""
    module = tiny_llama()
    bundle = ModelBundle(module, Pads(), find_targets(module, ["q_proj"]), "language")
    adapter = make_method(method_values("lora")).attach(bundle, None, 0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    scaler, fresh = torch.amp.GradScaler("cpu"), torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(1))
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**14, "_growth_tracker": 5})
    train._save(tmp_path / "c", adapter, optimizer, scaler, train.TrainResult(steps=3))
    fresh.scale(torch.ones(1))
    assert train._resume(tmp_path / "c", adapter, optimizer, fresh, train.TrainResult()).steps == 3
    assert fresh.state_dict() == scaler.state_dict() and fresh.get_scale() == 2.0**14
