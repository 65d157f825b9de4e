"""CorDA's initial factors against PEFT's on the same weights and samples."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda

from baselines.corda import damped_inverse
from eva_bench.system.errors import UserError
from tests.conftest import method_values
from tests.contract.test_methods import make_bundle
from tests.settings import make_method

RANK, ALPHA = 4, 6.0


def samples(n=12):
    """Batches of one sequence without padding: PEFT takes no others."""
    ids = torch.randint(3, 60, (n, 1, 24), generator=torch.Generator().manual_seed(9))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]


@pytest.mark.parametrize("architecture", ["llama", "gpt2_conv1d"])
@pytest.mark.parametrize("part", ["ipm", "kpm"])
def test_corda_is_that_of_peft(part, architecture, tokens):
    bundle = make_bundle(architecture)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(bundle.targets), init_lora_weights="corda",
        corda_config=CordaConfig(corda_method=part), fan_in_fan_out=architecture == "gpt2_conv1d",
    )  # fmt: skip
    model = copy.deepcopy(bundle.module)
    preprocess_corda(model, config, run_model=lambda: [model(**sample) for sample in samples()])
    theirs = get_peft_model(model, config).base_model.model
    method = make_method(method_values(f"corda_{part}", svd="exact"))
    adapter = method.attach(bundle, samples(), 0)
    for name, layer in adapter.layers.items():
        peft_layer = theirs.get_submodule(name)
        A, B = peft_layer.lora_A["default"].weight, peft_layer.lora_B["default"].weight
        assert torch.allclose(layer.B @ layer.A, B @ A, atol=2e-5)
        assert torch.allclose(layer.B.norm(dim=0), B.norm(dim=0), rtol=1e-3)
        assert torch.allclose(layer.base.weight, peft_layer.base_layer.weight, atol=2e-5)
    with torch.no_grad():
        assert torch.allclose(bundle.module(tokens).logits, theirs.eval()(tokens).logits, atol=1e-5)


def test_padding_does_not_count():
    padded = []
    for sample in samples():
        ids = torch.cat([sample["input_ids"], torch.full((1, 5), 7)], dim=1)
        mask = torch.cat([sample["attention_mask"], torch.zeros(1, 5, dtype=torch.long)], dim=1)
        padded.append({"input_ids": ids, "attention_mask": mask})
    method = make_method(method_values("corda_ipm", svd="exact"))
    with_padding = method.attach(make_bundle("llama"), padded, 0)
    without = method.attach(make_bundle("llama"), samples(), 0)
    for name, layer in with_padding.layers.items():
        assert torch.allclose(layer.factors().delta(), without.layers[name].factors().delta(), atol=1e-5)


def test_moments_without_full_rank_are_damped_and_zeros_refused():
    rows = torch.randn(3, 20, generator=torch.Generator().manual_seed(1))
    damped, inverse, damping = damped_inverse(rows.T @ rows, "layer")
    assert torch.dist(damped @ inverse, torch.eye(20)) < 0.05 and damping == 0.01
    huge = torch.diag(torch.tensor([1e9, 1.0]).repeat(10)) + 1e8
    assert damped_inverse(huge, "layer")[2] >= 0.01
    with pytest.raises(UserError, match="inputs of layer 'layer' are zero"):
        damped_inverse(torch.zeros(5, 5), "layer")
