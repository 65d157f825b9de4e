"""CorDA's initial factors against PEFT's on the same weights and samples."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda

from baselines.corda import damped_inverse, normalised_rows
from eva_bench.system.errors import UserError
from tests.conftest import method_values
from tests.contract.test_methods import make_bundle
from tests.settings import make_method

RANK, ALPHA = 4, 6.0


def samples(n=12):
    """Batches of one sequence without padding: PEFT takes no others."""
    ids = torch.randint(3, 60, (n, 1, 24), generator=torch.Generator().manual_seed(9))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]


def batches_of(size, ones):
    """The same sequences, `size` in a batch."""
    parts = [ones[i : i + size] for i in range(0, len(ones), size)]
    return [{key: torch.cat([one[key] for one in part]) for key in part[0]} for part in parts]


@pytest.mark.parametrize("size", [1, 4, 5])  # sequences of our batches; 5 leaves a last batch of 2
@pytest.mark.parametrize("architecture", ["llama", "gpt2_conv1d"])
@pytest.mark.parametrize("part", ["ipm", "kpm"])
def test_corda_is_that_of_peft(part, architecture, size, tokens):
    """PEFT reads one sequence at a time; however we cut them into batches, both factors are its factors."""
    bundle = make_bundle(architecture)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(bundle.targets), init_lora_weights="corda",
        corda_config=CordaConfig(corda_method=part), fan_in_fan_out=architecture == "gpt2_conv1d",
    )  # fmt: skip
    model = copy.deepcopy(bundle.module)
    preprocess_corda(model, config, run_model=lambda: [model(**sample) for sample in samples()])
    theirs = get_peft_model(model, config).base_model.model
    method = make_method(method_values(f"corda_{part}", svd="exact"))
    adapter = method.attach(bundle, batches_of(size, samples()), 0)
    for name, layer in adapter.layers.items():
        peft_layer = theirs.get_submodule(name)
        A, B = peft_layer.lora_A["default"].weight, peft_layer.lora_B["default"].weight
        assert torch.allclose(layer.B @ layer.A, B @ A, atol=2e-5)
        assert torch.allclose(layer.A.norm(dim=1), A.norm(dim=1), rtol=5e-3)  # float32: the least components of kpm
        assert torch.allclose(layer.B.norm(dim=0), B.norm(dim=0), rtol=5e-3)
        assert torch.allclose(layer.base.weight, peft_layer.base_layer.weight, atol=2e-5)
    with torch.no_grad():
        assert torch.allclose(bundle.module(tokens).logits, theirs.eval()(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4])
def test_padding_does_not_count(size):
    short = [{key: value[:, : 24 - i] for key, value in sample.items()} for i, sample in enumerate(samples())]
    padded = []
    for sample in short:
        missing = 29 - sample["input_ids"].shape[1]
        ids = torch.cat([sample["input_ids"], torch.full((1, missing), 7)], dim=1)
        mask = torch.cat([sample["attention_mask"], torch.zeros(1, missing, dtype=torch.long)], dim=1)
        padded.append({"input_ids": ids, "attention_mask": mask})
    method = make_method(method_values("corda_ipm", svd="exact"))
    with_padding = method.attach(make_bundle("llama"), batches_of(size, padded), 0)
    without = method.attach(make_bundle("llama"), short, 0)
    for name, layer in with_padding.layers.items():
        assert torch.allclose(layer.factors().delta(), without.layers[name].factors().delta(), atol=1e-5)
        assert torch.allclose(layer.B.norm(dim=0), without.layers[name].B.norm(dim=0), rtol=5e-3)


def test_rows_are_divided_by_the_largest_entry_of_their_example():
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    expected = torch.cat([x[0] / x[0].max().abs(), x[1, :2] / x[1, :2].max().abs()])
    flat = x.view(15, 4)  # as a layer sees it that is called with all tokens in one dimension
    for given in (x, flat):
        assert torch.allclose(normalised_rows("layer", given, masks=[mask], examples=3), expected)
    windows = x.repeat(1, 4, 1).view(12, 5, 4)  # an image model's: four to an example
    expected = torch.cat([x[i].repeat(4, 1) / x[i].max().abs() for i in range(3)])
    assert torch.allclose(normalised_rows("layer", windows, masks=[], examples=3), expected)
    routed = flat[:6]  # tokens that a router chose: nobody knows whose
    assert torch.allclose(normalised_rows("layer", routed, masks=[mask], examples=3), routed / routed.max().abs())
    assert normalised_rows("layer", flat[:0], masks=[mask], examples=3).shape == (0, 4)
    nothing_above_zero = -torch.eye(3)[None]
    assert torch.equal(normalised_rows("layer", nothing_above_zero, masks=[], examples=1), nothing_above_zero[0])


def test_moments_without_full_rank_are_damped_and_zeros_refused():
    rows = torch.randn(3, 20, generator=torch.Generator().manual_seed(1))
    damped, inverse, damping = damped_inverse(rows.T @ rows, "layer")
    assert torch.dist(damped @ inverse, torch.eye(20)) < 0.05 and damping == 0.01
    huge = torch.diag(torch.tensor([1e9, 1.0]).repeat(10)) + 1e8
    assert damped_inverse(huge, "layer")[2] >= 0.01
    with pytest.raises(UserError, match="inputs of layer 'layer' are zero"):
        damped_inverse(torch.zeros(5, 5), "layer")
