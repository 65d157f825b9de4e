"""Gradient-based initial factors against autograd, PEFT and the formulas in float64."""

import copy

import pytest
import torch
from peft import LoraConfig, LoraGAConfig, get_peft_model
from peft.tuners.lora import preprocess_loraga

from eva_bench.methods.gradients import layer_gradients
from eva_bench.models.linear import weight_matrix
from eva_bench.system.errors import UserError
from tests.conftest import ARCHITECTURES, FixedBatches
from tests.contract.test_methods import attach, make_bundle

RANK, ALPHA = 8, 12.0  # 4 r is the width of the tiny models: PEFT's randomised SVD is exact there
SCALE = ALPHA / RANK
EXACT = {"rank": RANK, "alpha": ALPHA, "svd": "exact", "batches": 3}


def autograd_gradients(bundle, n_batches):
    """The mean gradient of each weight, (out, in), as autograd leaves it in `.grad`."""
    module = copy.deepcopy(bundle.module).requires_grad_(True)
    for batch in FixedBatches(n_batches):
        (module(**batch).loss / n_batches).backward()
    transposed = {name: weight_matrix(module.get_submodule(name)) for name in bundle.targets}
    grads = {name: module.get_submodule(name).weight.grad for name in bundle.targets}
    return {name: g if transposed[name].is_contiguous() else g.T for name, g in grads.items()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2_conv1d"])
@pytest.mark.parametrize("n_batches", [1, 3])
def test_gradients_are_those_of_autograd_and_leave_the_model_as_it_was(architecture, n_batches):
    bundle = make_bundle(architecture)
    expected = autograd_gradients(bundle, n_batches)
    before = copy.deepcopy(bundle.module.state_dict())
    found = {}
    bundle.module.train()
    assert layer_gradients(bundle, FixedBatches(n_batches), 10, found.__setitem__) == n_batches
    assert bundle.module.training and all(p.requires_grad and p.grad is None for p in bundle.module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in bundle.module.state_dict().items())
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], atol=1e-7, rtol=1e-4)


def test_a_head_that_shares_its_weight_gets_the_gradient_of_its_linear_use_only():
    tied, untied = make_bundle("llama_tied_head"), make_bundle("llama_tied_head")
    untied.module.lm_head.weight = torch.nn.Parameter(untied.module.lm_head.weight.detach().clone())
    expected = autograd_gradients(untied, 2)
    found = {}
    layer_gradients(tied, FixedBatches(2), 2, found.__setitem__)
    assert torch.allclose(found["lm_head"], expected["lm_head"], atol=1e-7, rtol=1e-4)


def test_only_one_gradient_is_alive_at_a_time_in_the_last_batch():
    import gc

    bundle = make_bundle("llama")
    shapes = {tuple(bundle.module.get_submodule(name).weight.shape) for name in bundle.targets}
    most = 0

    def tensors():
        return [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.dtype == torch.float32]

    before = tensors()  # the weights, and what other tests of this process still hold
    known = {id(t) for t in before}

    def use(name, gradient):
        nonlocal most
        most = max(most, sum(tuple(t.shape) in shapes and id(t) not in known for t in tensors()))

    layer_gradients(bundle, FixedBatches(1), 1, use)
    assert 1 <= most <= 2  # the sum and, while it is passed on, the mean


def test_a_layer_that_the_loss_never_reaches_is_named():
    bundle = make_bundle("llama")
    bundle.module.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output.detach())
    with pytest.raises(UserError, match=r"does not depend on layer 'model\.layers\.1\.mlp\."):
        attach("lora_ga", bundle)
    zero = make_bundle("llama")
    zero.module.model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: output * 0)
    with pytest.raises(UserError, match=r"gradient of layer 'model\.layers\.0\.mlp\.\w+' is zero"):
        attach("lora_one", zero)


@pytest.mark.parametrize("broken", [lambda output: output.detach(), lambda output: output * 0])
def test_a_layer_that_the_preheating_never_reaches_is_named(broken):
    bundle = make_bundle("llama")
    bundle.module.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: broken(output))
    with pytest.raises(UserError, match=r"layer 'model\.layers\.1\.mlp\.\w+' learned nothing in .*preheat_steps=32"):
        attach("hrp", bundle)


def test_a_preheating_that_diverges_is_refused_with_its_rate():
    with pytest.raises(UserError, match=r"layer 'model\.\S+' is not finite: give method\.preheat_lr below 1e\+30"):
        attach("hrp", make_bundle("llama"), preheat_lr=1e30)


def test_more_directions_than_a_gradient_has_are_refused():
    with pytest.raises(UserError, match=r"takes 20 directions from a gradient at rank 10; that of layer .* has 16"):
        attach("lora_ga", make_bundle("llama"), rank=10)


@pytest.mark.parametrize("architecture", ["llama", "gpt2_conv1d"])
def test_lora_ga_peft_is_that_of_peft(architecture):
    """Up to the sign of each singular vector, which is arbitrary. Conv1D: PEFT takes the input width for c."""
    bundle = make_bundle(architecture)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(bundle.targets), init_lora_weights="lora_ga",
        fan_in_fan_out=architecture == "gpt2_conv1d",
        lora_ga_config=LoraGAConfig(direction="ArB2r", scale="stable", stable_gamma=16),
    )  # fmt: skip
    model = copy.deepcopy(bundle.module)

    def train_step():
        model.eval()  # PEFT leaves dropout on
        for batch in FixedBatches(3):
            model(**batch).loss.backward()

    preprocess_loraga(model, config, train_step)
    theirs = get_peft_model(model, config).base_model.model
    _, adapter = attach("lora_ga_peft", bundle, **EXACT)
    for name, layer in adapter.layers.items():
        peft_layer = theirs.get_submodule(name)
        A, B = peft_layer.lora_A["default"].weight, peft_layer.lora_B["default"].weight
        if architecture == "gpt2_conv1d":
            out_width, in_width = layer.B.shape[0], layer.A.shape[1]
            B = B * (out_width / in_width) ** 0.25
        assert torch.allclose((layer.A * A).sum(1).abs(), torch.ones(RANK), atol=1e-4)
        sizes = B.norm(dim=0)
        assert torch.allclose(layer.B.norm(dim=0), sizes, rtol=1e-3)
        assert torch.allclose((layer.B * B).sum(0).abs(), sizes.square(), rtol=1e-3)
        assert layer.scale == peft_layer.scaling["default"]


def test_the_papers_lora_ga_is_the_formula_and_not_pefts():
    bundle = make_bundle("llama")
    gradients = autograd_gradients(bundle, 3)
    before = copy.deepcopy(bundle.module.state_dict())
    _, adapter = attach("lora_ga", bundle, **EXACT)
    for name, layer in adapter.layers.items():
        U, _, V = torch.linalg.svd(gradients[name].double(), full_matrices=False)
        size = len(U) ** 0.25 / 16**0.5
        assert torch.allclose((layer.A.double() * V[:RANK]).sum(1).abs(), torch.full((RANK,), size).double(), rtol=1e-3)
        cosines = (layer.B.double() * U[:, RANK : 2 * RANK]).sum(0).abs()
        assert torch.allclose(cosines, torch.full((RANK,), size).double(), rtol=1e-3)
        reduced = before[f"{name}.weight"] - SCALE * layer.B @ layer.A
        assert torch.allclose(layer.base.weight, reduced, atol=1e-6)
    peft = attach("lora_ga_peft", make_bundle("llama"), **EXACT)[1]
    name = bundle.targets[0]
    assert peft.layers[name].B.norm() < 0.1 * adapter.layers[name].B.norm()  # PEFT's B is as small as the gradient


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_one_starts_after_a_low_rank_step_down_the_gradient(architecture):
    bundle = make_bundle(architecture)
    found = {}
    layer_gradients(bundle, FixedBatches(3), 3, found.__setitem__)
    _, adapter = attach("lora_one", bundle, **EXACT)
    for name, layer in adapter.layers.items():
        U, S, V = torch.linalg.svd(-found[name].double(), full_matrices=False)
        step = (U[:, :RANK] * (S[:RANK] / S[0] / 128)) @ V[:RANK]
        assert torch.allclose(layer.factors().delta().double(), SCALE * step, atol=1e-5)
        assert torch.allclose(layer.A.norm(dim=1), layer.B.norm(dim=0), rtol=1e-4)  # balanced
        assert (layer.factors().delta() * found[name]).sum() < 0  # downhill
