"""What a run would cost: published numbers of parameters, memory of tensors without content, and what would help."""

from __future__ import annotations

import pytest
import torch

from eva_bench import cli
from eva_bench.run import plan_cost
from eva_bench.run.peak import PeakBytes
from eva_bench.settings.compose import compose_settings, to_settings
from eva_bench.settings.schema import Settings
from eva_bench.system.errors import UserError


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


def test_what_would_help_is_named_where_a_run_does_not_fit():
    chosen = settings("task=math scale=paper")
    cost = plan_cost.Cost(
        parameters=1, trained=1, weights=27 * 10**9, optimiser=0, training=54 * 10**9, generation_cache=86 * 10**9,
        evaluation=113 * 10**9, steps=1, tokens=1, datasets=[],
    )  # fmt: skip
    helps = " ".join(plan_cost.advice(chosen, cost, 24e9))
    for name in (
        "train.micro_batch_size=1",
        "train.gradient_checkpointing=true",
        "eval.batch_size=8",
        "model.dtype=bfloat16",
    ):
        assert name in helps
    assert plan_cost.advice(chosen, cost, 200e9) == []


def test_keys_and_values_of_the_longest_answers():
    """Two numbers a layer, head and position: Llama-2-7B, 32 answers of 512 + 2,048 tokens in float32."""
    chosen = settings("task=math scale=paper")

    class Config:
        num_hidden_layers, num_attention_heads, hidden_size, max_position_embeddings = 32, 32, 4096, 4096
        num_key_value_heads = None

    assert plan_cost._generation_cache(chosen, Config()) == 2 * 32 * 4096 * 4 * 32 * (512 + 2048)


def test_steps_follow_from_the_rows_of_the_manifest():
    assert plan_cost._steps(settings("task=math scale=paper")) == -(-395_000 // 32)
    assert plan_cost._steps(settings("task=gsm8k scale=lite")) == 3125


def test_the_command_says_the_cost_and_runs_nothing(monkeypatch, capsys, tmp_path):
    line = f"method=lora task=gsm8k data.max_length=16 plan=true plan.memory=24GB,1GB runs_dir={tmp_path / 'runs'}"
    monkeypatch.setattr("sys.argv", ["run.py", *line.split()])
    assert cli.main() == 0
    out = capsys.readouterr().out
    assert "training peak" in out and "24GB              fits" in out and not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="'big' is no size"):
        plan_cost.memory_sizes("24GB,big")
