"""What every method must hold on vision transformers, whose fused layers are split and whose head and biases train."""

from __future__ import annotations

import pytest
import timm
import torch
from peft import PeftModel
from safetensors.torch import load_file

from eva_bench.methods.peft_export import export_adapter
from eva_bench.models import vision
from tests.conftest import method_values
from tests.contract.test_methods import EXPORTED, perturb
from tests.settings import make_method, train_settings
from tests.vision import ARCHITECTURES, CLASSES, load_vit, some_pixels, write_vit

MODELS = ("pocket_vision", "dinov2_g14", "dinov2_s14")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A function from a model's name to a fresh bundle of it."""
    base = tmp_path_factory.mktemp("vits")
    folders = {name: write_vit(name, base / name) for name in ARCHITECTURES}
    return lambda name: load_vit(name, folders.get(name))


class Pictures:
    """Re-creatable calibration batches of random images."""

    def __init__(self, bundle):
        self.batches = [{"x": some_pixels(bundle, 6) + i, "labels": torch.zeros(6, dtype=torch.long)} for i in range(4)]

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def loss(self, module, batch):
        return torch.nn.functional.cross_entropy(module(batch["x"]), batch["labels"])


def attach(name, bundle):
    method = make_method(method_values(name))
    return method, method.attach(bundle, Pictures(bundle), 0)


@pytest.mark.parametrize("name", ["pocket_vision", *ARCHITECTURES])
def test_splitting_leaves_the_function_and_fusing_the_weights_unchanged(name, bundle):
    split = bundle(name)
    fused = timm.create_model(
        split.processor.config["architecture"],
        num_classes=CLASSES,
        global_pool="token",
        **split.processor.config["model_args"],
    )
    state = vision.fused_state_dict(split.module)
    fused.load_state_dict(state)  # strict: the very names of timm
    x = some_pixels(split)
    with torch.no_grad():
        assert torch.allclose(split.module(x), fused.eval()(x), atol=1e-5)
    again = vision.fused_state_dict(vision.split_fused(fused))
    assert all(torch.equal(again[key], value) for key, value in state.items())


def test_every_matrix_of_a_block_is_a_target_of_its_own(bundle):
    parts = {
        "dinov2_s14": {"q", "k", "v", "proj", "fc1", "fc2"},
        "dinov2_g14": {"q", "k", "v", "proj", "gate", "value", "fc2"},
    }
    for name, wanted in parts.items():
        split = bundle(name)
        assert {target.rpartition(".")[2] for target in split.targets} == wanted
        linear = [n for n, layer in split.module.named_modules() if isinstance(layer, torch.nn.Linear)]
        assert set(linear) - set(split.targets) == {"head"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", EXPORTED)
def test_start_export_reload_and_merge(name, model, bundle, tmp_path):
    trained = bundle(model)
    x = some_pixels(trained)
    with torch.no_grad():
        before = trained.module(x)
        method, adapter = attach(name, trained)
        assert method.changes_function or torch.allclose(trained.module(x), before, atol=2e-5)

        assert adapter.biases and "head.bias" in adapter.biases
        perturb(adapter)
        wanted = trained.module(x)
        assert (wanted - before).abs().max() > 1e-2
        with adapter.merged():
            assert torch.allclose(trained.module(x), wanted, atol=2e-5)
        export_adapter(
            tmp_path / "adapter", method.export(adapter), trained.module, "vision", trained.head, "base", adapter.biases
        )
        loaded = PeftModel.from_pretrained(bundle(model).module, tmp_path / "adapter").eval()
        assert (loaded(x) - wanted).abs().max() <= 2e-5

        vision.merge(bundle(model), tmp_path / "adapter", tmp_path / "merged")
        stock = timm.create_model(f"local-dir:{tmp_path / 'merged'}", pretrained=True).eval()
        assert (stock(x) - wanted).abs().max() <= 5e-5


@pytest.mark.parametrize("name", EXPORTED)
def test_factors_head_and_biases_train_and_nothing_else(name, bundle):
    model = bundle("dinov2_g14")
    biases = {n for n, _ in model.module.named_parameters() if n.endswith("bias")}
    method, adapter = attach(name, model)
    kinds = {n.rpartition(".")[2] for n in adapter.trained() if not n.startswith("head.")}
    magnitude = {"magnitude"} if any(layer.magnitude is not None for layer in adapter.layers.values()) else set()
    assert kinds == {*method.trained, "bias"} | magnitude
    assert set(adapter.biases) == biases and all(p.requires_grad for p in adapter.biases.values())
    torch.nn.functional.cross_entropy(model.module(some_pixels(model)), torch.tensor([0, 1, 2])).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in adapter.biases.items() if not n.endswith("k.bias")
    )
    assert all(p.grad is None for p in model.module.parameters() if not p.requires_grad)
    groups = method.parameter_groups(adapter, train_settings(lr=1e-3, weight_decay=0.05))
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    factors = {id(p) for layer in adapter.layers.values() for p in (layer.A, layer.B)}
    for parameter in adapter.trained().values():
        kept = parameter.ndim == 1 or (method.reduces_base and id(parameter) in factors)
        assert decays[id(parameter)] == (0.0 if kept else 0.05)


def test_a_layer_without_ranks_keeps_its_trained_bias_in_the_export(bundle, tmp_path):
    trained = bundle("dinov2_s14")
    method, adapter = attach("lora", trained)
    perturb(adapter)
    factors = method.export(adapter)
    left_out = next(iter(factors))
    with torch.no_grad():
        adapter.layers[left_out].B.zero_()
        wanted = trained.module(some_pixels(trained))
    del factors[left_out]
    export_adapter(tmp_path, factors, trained.module, "vision", trained.head, "base", adapter.biases)
    assert f"base_model.model.{left_out}.bias" in load_file(tmp_path / "adapter_model.safetensors")
    loaded = PeftModel.from_pretrained(bundle("dinov2_s14").module, tmp_path).eval()
    with torch.no_grad():
        assert (loaded(some_pixels(trained)) - wanted).abs().max() <= 2e-5


def test_full_fine_tuning_is_saved_in_timms_own_layout(bundle, tmp_path):
    trained = bundle("dinov2_g14")
    _, adapter = attach("full", trained)
    assert set(adapter.trained()) == {n for n, _ in trained.module.named_parameters()}
    perturb(adapter)
    vision.save(trained, tmp_path / "model")
    stock = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    x = some_pixels(trained)
    with torch.no_grad():
        assert torch.allclose(stock(x), trained.module(x), atol=1e-5)
        again = load_vit("dinov2_g14", tmp_path / "model", outputs=7)  # as model.path: the body, with a new head
        assert again.module(x).shape == (3, 7)
        assert torch.equal(again.module.cls_token, trained.module.cls_token)
