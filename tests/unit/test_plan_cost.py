"""What a run would cost: published numbers of parameters, memory of tensors without content, and what would help."""

from __future__ import annotations

import pytest
import torch

from eva_bench import cli, models
from eva_bench.records.store import Store
from eva_bench.run import plan, plan_cost
from eva_bench.run.peak import PeakBytes
from eva_bench.run.prepare import prepare
from eva_bench.run.session import Session
from eva_bench.settings.compose import compose_settings, compose_spec, to_settings
from eva_bench.settings.schema import Settings
from eva_bench.system.errors import UserError
from eva_bench.system.paths import RESULTS
from eva_bench.system.signals import StopSignal
from perf import plan as perf_plan


def settings(line: str) -> Settings:
    return to_settings(compose_settings(["method=lora", *line.split()]))


def test_the_peak_is_of_what_lives_at_the_same_time():
    with PeakBytes() as peak:
        for _ in range(3):
            block = torch.zeros(1000)  # 4,000 bytes, freed before the next one but for the last
            view = block[:10]
            del block, view
        kept = torch.zeros(10)
    assert peak.peak == 4000 + 0 and peak.live == kept.nbytes


@pytest.mark.parametrize(
    ("line", "parameters"),
    [
        ("task=gsm8k scale=lite", 134_515_008),  # model card of SmolLM2-135M
        ("task=glue/rte scale=lite", 124_647_170),  # RoBERTa base with a head of two classes
        ("task=metaworld/push scale=paper", 13_150_724),  # docs/tasks/metaworld.md: 13.1 million
    ],
)
def test_parameters_are_the_published_ones_without_a_checkpoint(line, parameters):
    small = "train.batch_size=2 train.micro_batch_size=2 " + ("" if "metaworld" in line else "data.max_length=16")
    chosen = settings(f"{line} {small}")
    found = plan_cost.cost_of(chosen)
    assert found.parameters == parameters and found.weights == 4 * parameters
    assert found.training > found.weights + found.optimiser


@pytest.mark.parametrize("method", ["lora", "full"])
def test_operations_of_a_training_are_four_or_six_a_parameter_and_token(method):
    """Forward two, backward two for what flows back and two for gradients of weights (Kaplan et al. 2020)."""
    line = "task=gsm8k train.batch_size=2 train.micro_batch_size=1 train.steps=3 data.max_length=16 eval.batch_size=1"
    cost = plan_cost.cost_of(to_settings(compose_settings([f"method={method}", *line.split()])))
    assert cost.tokens == 3 * 2 * 16
    each = 6 * cost.parameters if method == "full" else 4 * cost.parameters + 6 * cost.trained
    assert cost.flops == pytest.approx(each * cost.tokens, rel=0.03)


def test_what_would_help_is_named_where_a_run_does_not_fit():
    chosen = settings("task=math scale=paper")
    cost = plan_cost.Cost(
        parameters=1, trained=1, weights=27 * 10**9, optimiser=0, training=54 * 10**9, generation_cache=86 * 10**9,
        evaluation=113 * 10**9, steps=1, tokens=1, flops=1,
    )  # fmt: skip
    helps = " ".join(plan.advice(chosen, cost, 24e9))
    for name in (
        "train.micro_batch_size=1",
        "train.gradient_checkpointing=true",
        "eval.batch_size=8",
        "model.dtype=bfloat16",
    ):
        assert name in helps
    assert plan.advice(chosen, cost, 200e9) == []


def test_keys_and_values_of_the_longest_answers():
    """Two numbers a layer, head and position: Llama-2-7B, 32 answers of 512 + 2,048 tokens in float32."""
    chosen = settings("task=math scale=paper")

    class Config:
        num_hidden_layers, num_attention_heads, hidden_size, max_position_embeddings = 32, 32, 4096, 4096
        num_key_value_heads = None

    assert plan_cost._generation_cache(chosen, Config()) == 2 * 32 * 4096 * 4 * 32 * (512 + 2048)


def test_steps_follow_from_the_rows_of_the_manifest():
    assert plan_cost.steps_of(settings("task=math scale=paper")) == -(-395_000 // 32)
    assert plan_cost.steps_of(settings("task=gsm8k scale=lite")) == 3125


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("task=gsm8k scale=lite", ["openai/gsm8k: 8,792 rows, 2.66 MB", "HuggingFaceTB/SmolLM2-135M: about 0.27 GB"]),
        ("task=math scale=paper", ["meta-math/MetaMathQA: 395,000 rows, size told by make fetch", "about 13.00 GB"]),
        ("task=vtab1k/dtd scale=paper", ["vtab1k/dtd: put there by hand"]),
        ("task=gsm8k", ["pocket/gsm8k: generated", "pocket_language: in the repository"]),
    ],
)
def test_what_is_read_is_named_with_its_size(line, expected):
    lines = plan.files(settings(line), 135_000_000 if "lite" in line else 6_500_000_000)
    for part in expected:
        assert any(part in text for text in lines), lines


SHORT = "method=lora task=gsm8k data.max_length=16 train.micro_batch_size=8 train.batch_size=8 eval.batch_size=1"


def test_a_run_that_does_not_fit_its_gpu_says_so_before_it_loads(monkeypatch, capsys):
    spec = compose_spec(SHORT.split())
    skeleton = models.skeleton(spec.model, spec.data).module
    peak = plan_cost.cost_of(to_settings(compose_settings(SHORT.split()))).peak
    for memory, said in ((1.2 * peak, ""), (0.9 * peak, "GB of little: train.micro_batch_size=1")):
        monkeypatch.setattr(plan, "devices", lambda memory=memory: {"big": 1e12, "little": memory})
        plan.foresee(spec, skeleton)
        assert said in (text := capsys.readouterr().err) and bool(text) == bool(said)
    monkeypatch.setattr(plan, "devices", lambda: {"vast": 1e12})
    monkeypatch.setattr(plan, "cost_of", None)  # a small model is not planned
    plan.foresee(spec, skeleton)
    monkeypatch.undo()
    monkeypatch.setattr(plan, "devices", lambda: {"little": 1e6})
    with pytest.raises(UserError, match=r"pocket_language has 0\.0 GB of weights in float32"):
        prepare(spec, Session(StopSignal()), Store(spec.where.results_dir))


def test_the_command_says_the_cost_and_runs_nothing(monkeypatch, capsys, tmp_path):
    line = f"method=lora task=gsm8k data.max_length=16 plan=true plan.memory=24GB,1GB runs_dir={tmp_path / 'runs'}"
    monkeypatch.setattr("sys.argv", ["run.py", *line.split()])
    assert cli.main() == 0
    out = capsys.readouterr().out
    assert "training peak" in out and "24GB              fits" in out and not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="'big' is no size"):
        plan.memory_sizes("24GB,big")


@pytest.mark.parametrize(
    ("run", "method"),
    [("pocket decision", "lora"), ("small Llama, random, recomputed", "lora"), ("small Llama, random", "full")],
)
def test_a_plan_is_what_torch_allocates_in_two_steps_and_an_evaluation(run, method):
    """As on the committed page, which has all runs: the training loop under torch's profiler."""
    page = (RESULTS / "bench" / "plan.md").read_text(encoding="utf-8")
    for found in perf_plan.compare(run, method):
        assert abs(found.ratio - 1) <= perf_plan.WITHIN, found
        assert f"| {run}, {method} | {found.phase} | {found.planned / 1e6:.1f} |" in page


def test_measured_is_what_lives_at_the_same_time():
    with (watch := perf_plan.AllocatedBytes()).watching():
        for _ in range(3):
            block = torch.zeros(250_000)  # 1 MB
            del block
        kept = torch.zeros(500_000)
    assert watch.peak == pytest.approx(kept.nbytes, rel=0.01)


def test_split_weights_are_those_of_a_process_two_blocks_and_what_is_in_no_block(tmp_path):
    """Llama-3.1-70B among eight processes; its parameters are those of the model card."""
    chosen = settings("task=math scale=paper recipe=paper/math_70b")
    assert chosen.model.sharded and chosen.model.dtype == "bfloat16"
    module = models.skeleton(plan_cost._with_configuration(chosen.model, tmp_path), chosen.data).module
    block = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192  # q and o, k and v, MLP, norms
    outside = 2 * 128256 * 8192 + 8192  # embedding, head, last norm
    whole = 80 * block + outside
    assert whole == sum(p.numel() for p in module.parameters()) == 70_553_706_496
    size = next(module.parameters()).element_size()
    assert size * whole - plan_cost._weights_elsewhere(module, 8) == size * (whole // 8 + 2 * block + outside)
    with pytest.raises(UserError, match=r"plan\.processes=none must be a whole number"):
        plan.process_count("none")
