"""The options that combine with any initialisation: rsLoRA's scale and DoRA's magnitude."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from eva_bench.methods.peft_export import export_adapter
from eva_bench.system.errors import UserError
from tests.conftest import method_values
from tests.contract.test_methods import attach, make_bundle, perturb
from tests.settings import make_method


@pytest.mark.parametrize("name", ["pissa", "olora", "corda_ipm", "lora_ga", "eva", "sorsa", "milora"])
def test_a_magnitude_goes_with_every_initialisation_and_into_stock_peft(name, tokens, tmp_path):
    bundle = make_bundle("llama")
    untouched = copy.deepcopy(bundle.module)
    method, adapter = attach(name, bundle, magnitude=True)
    with torch.no_grad():
        assert torch.allclose(bundle.module(tokens).logits, untouched(tokens).logits, atol=2e-5)
        norms = {n: untouched.get_submodule(n).weight.norm(dim=1) for n in adapter.layers}
    assert all(torch.allclose(layer.magnitude, norms[n], atol=1e-5) for n, layer in adapter.layers.items())
    perturb(adapter)
    export_adapter(tmp_path, method.export(adapter), bundle.module, "language", (), "base")
    loaded = PeftModel.from_pretrained(untouched, tmp_path).eval()
    with torch.no_grad():
        assert (loaded(tokens).logits - bundle.module(tokens).logits).abs().max() <= 1e-5


def test_gradients_of_dora_are_those_of_peft(tokens):
    bundle = make_bundle("llama")
    config = LoraConfig(r=4, lora_alpha=6, target_modules=list(bundle.targets), use_dora=True)
    theirs = get_peft_model(copy.deepcopy(bundle.module), config).eval()
    _, adapter = attach("dora", bundle)
    perturb(adapter)
    layers = {name: theirs.base_model.model.get_submodule(name) for name in bundle.targets}
    with torch.no_grad():
        for name, layer in adapter.layers.items():
            layers[name].lora_A["default"].weight.copy_(layer.A)
            layers[name].lora_B["default"].weight.copy_(layer.B)
            layers[name].lora_magnitude_vector["default"].weight.copy_(layer.magnitude)
    bundle.module(tokens, labels=tokens).loss.backward()
    theirs(input_ids=tokens, labels=tokens).loss.backward()
    for name, layer in adapter.layers.items():
        peft_layer = layers[name]
        pairs = [(layer.A, peft_layer.lora_A["default"].weight), (layer.B, peft_layer.lora_B["default"].weight)]
        pairs.append((layer.magnitude, peft_layer.lora_magnitude_vector["default"].weight))
        for ours, peft in pairs:
            assert torch.allclose(ours.grad, peft.grad, atol=1e-6, rtol=1e-4)


def test_a_layer_with_a_row_of_zeros_keeps_its_weight(tokens, capsys):
    bundle = make_bundle("llama")
    name = bundle.targets[0]
    with torch.no_grad():
        bundle.module.get_submodule(name).weight[2] = 0
        before = bundle.module(tokens).logits
        weight = bundle.module.get_submodule(name).weight.clone()
        _, adapter = attach("pissa", bundle, magnitude=True)
        assert torch.allclose(bundle.module(tokens).logits, before, atol=2e-5)
    assert name not in adapter.layers and len(adapter.layers) == len(bundle.targets) - 1
    assert torch.equal(bundle.module.get_submodule(name).weight, weight)
    assert f"layer '{name}' has a row of zeros" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lora", "eva", "milora"])
def test_rslora_scales_by_the_root_of_the_rank(name):
    bundle = make_bundle("llama")
    _, adapter = attach(name, bundle, scaling="rslora")
    assert {layer.scale for layer in adapter.layers.values()} == {6 / math.sqrt(4)}
    assert attach("rslora", make_bundle("llama"))[1].layers[bundle.targets[0]].scale == 3.0


def test_a_class_that_leaves_something_undefined_is_refused_with_what():
    values = method_values("lora_unit_rows", _target_="eva_bench.methods.base.WeightMethod")
    with pytest.raises(UserError, match=r"method\._target_=.*WeightMethod does not define layer_factors\."):
        make_method(values)


def test_a_null_alpha_is_scale_one_and_goes_with_no_scaling():
    assert make_method(method_values("olora", alpha=None)).scale == 1
    scaled = make_method(method_values("olora", alpha=None, scaling="rslora"))
    with pytest.raises(UserError, match=r"adapter\.scaling=rslora scales alpha, and method\.alpha is null"):
        scaled.check(make_bundle("llama"))
