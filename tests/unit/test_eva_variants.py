"""The starts made from a subspace, and the door for PEFT models."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from eva_bench.eva import EvaError, LayerSubspace, directions, initialize_eva
from tests.conftest import FixedBatches, tiny_gpt2, tiny_llama


@pytest.fixture
def subspace() -> LayerSubspace:
    basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0))).Q
    return LayerSubspace(basis[:6], torch.tensor([8.0, 4, 2, 1, 0.5, 0]), 16.0, rows=100, group="layer")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_leading_rows_are_the_components(subspace):
    assert torch.equal(directions.leading(subspace, 3), subspace.components[:3])


def test_whitening_equalises_the_variances_and_changes_nothing_in_place(subspace):
    before = subspace.components.clone()
    rows = directions.whitened(subspace, 4)
    variances = subspace.eigenvalues[:4] * rows.norm(dim=1).square()
    assert torch.allclose(variances, torch.full((4,), subspace.total_variance))
    assert torch.equal(directions.whitened(subspace, 4), rows) and torch.equal(subspace.components, before)
    assert torch.isfinite(directions.whitened(subspace, 6)).all()


def test_rotation_keeps_the_space_and_permutation_the_columns(subspace):
    rotated, permuted = directions.rotated(subspace, 4, seeded()), directions.permuted(subspace, 4, seeded())
    leading = subspace.components[:4]
    assert torch.allclose(rotated.T @ rotated, leading.T @ leading, atol=1e-5)
    assert not torch.allclose(rotated, leading, atol=1e-2)
    assert torch.equal(permuted.sort(0).values, leading.sort(0).values)
    assert not torch.equal(permuted, leading)


def test_minor_takes_the_last(subspace):
    assert torch.equal(directions.minor(subspace, 2), subspace.components[4:])


def test_random_controls_have_the_scale_they_promise():
    rows = directions.orthonormal(5, 40, seeded())
    assert torch.allclose(rows @ rows.T, torch.eye(5), atol=1e-5)
    assert directions.kaiming(200, 40, seeded()).square().sum(1).mean() == pytest.approx(1 / 3, rel=0.05)


def peft_llama(**options):
    return get_peft_model(tiny_llama(), LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", **options))


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_the_door_keeps_function_budget_and_scaling(make, tokens):
    targets = "all-linear" if make is tiny_llama else ["c_attn", "c_fc", "c_proj"]
    model = get_peft_model(
        make(), LoraConfig(r=4, lora_alpha=6, target_modules=targets, fan_in_fan_out=make is tiny_gpt2)
    )
    before = model(tokens).logits
    result = initialize_eva(model, FixedBatches(), rho=2)
    assert torch.equal(model(tokens).logits, before)
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
    assert sum(layer.r["default"] for layer in layers.values()) == 4 * len(result.layers)
    for name, layer in layers.items():
        assert layer.scaling["default"] == pytest.approx(1.5)
        rows = layer.lora_A["default"].weight
        assert torch.equal(rows, result.layers[name].components[: len(rows)])


def test_layers_without_rank_are_freed_and_the_adapter_loads_again(tokens, tmp_path):
    model = peft_llama()
    untouched = copy.deepcopy(tiny_llama())
    result = initialize_eva(model, FixedBatches(), rho=8, score="raw")
    adapted = [n for n, m in model.named_modules() if hasattr(m, "lora_A")]
    assert 0 < len(adapted) < len(result.layers)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(untouched, tmp_path)
    assert torch.allclose(loaded(tokens).logits, model(tokens).logits, atol=1e-5)


def test_the_door_refuses_what_it_cannot_serve():
    with pytest.raises(EvaError, match="rank_pattern"):
        initialize_eva(peft_llama(rank_pattern={"q_proj": 2}), FixedBatches())
    embedding = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["embed_tokens"]))
    with pytest.raises(EvaError, match="no LoRA layer"):
        initialize_eva(embedding, FixedBatches())
