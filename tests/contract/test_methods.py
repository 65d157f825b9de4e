"""What every method must hold. A new YAML in conf/method is tested here without touching this file."""

import copy

import pytest
import torch
from hydra.utils import get_class
from peft import PeftModel
from transformers import AutoModelForCausalLM

from eva_bench.cli import help_text, methods_by_group
from eva_bench.methods.base import Method
from eva_bench.methods.layer import Adapter
from eva_bench.methods.peft_export import export_adapter
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import find_targets
from eva_bench.system.errors import UserError
from tests.conftest import ARCHITECTURES, ROOT, FixedBatches, method_names, method_values
from tests.settings import make_method, train_settings


def with_attribute(attribute: str, value: bool = True) -> list[str]:
    """Names of the methods whose class says so."""
    kinds = {name: get_class(method_values(name)["_target_"]) for name in method_names()}
    return [name for name, kind in kinds.items() if getattr(kind, attribute) == value]


EXPORTED = with_attribute("exports_adapter")


def make_bundle(architecture: str) -> ModelBundle:
    make, endings = ARCHITECTURES[architecture]
    module = make()
    return ModelBundle(module, None, find_targets(module, endings), "language")


def attach(name: str, bundle: ModelBundle, seed: int = 0, **changes) -> tuple:
    method = make_method(method_values(name, **changes))
    return method, method.attach(bundle, FixedBatches(), seed)


def perturb(adapter: Adapter) -> None:
    """Stand-in for training: change every trained tensor a little."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in adapter.trained().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def exact_method(name: str) -> Method:
    """The method, with an exact SVD instead of a randomized one."""
    return make_method(method_values(name, **({"svd": "exact"} if "svd" in method_values(name) else {})))


def weights_alone() -> list[str]:
    """Names of the methods whose initial factors follow from the weights: no data, no random numbers."""
    methods = {name: exact_method(name) for name in with_attribute("uses_data", False)}
    found = [name for name, method in methods.items() if not method.seeded]
    assert found
    return found


@pytest.mark.parametrize("name", weights_alone())
def test_initial_factors_are_the_same_for_every_seed_where_a_method_says_so(name):
    bundle, method = make_bundle("llama"), exact_method(name)
    one, two = (method.initialise(bundle, FixedBatches(), seed).factors for seed in (0, 1))
    for layer, factors in one.items():
        for part, tensor in factors.tensors().items():
            assert torch.equal(tensor, two[layer].tensors()[part]), (layer, part)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", with_attribute("changes_function", False))
def test_attaching_leaves_the_function_unchanged(name, architecture, tokens):
    bundle = make_bundle(architecture)
    with torch.no_grad():
        before = bundle.module(tokens).logits
        attach(name, bundle)
        assert torch.allclose(bundle.module(tokens).logits, before, atol=2e-5)


@pytest.mark.parametrize("name", with_attribute("changes_function"))
def test_a_method_that_changes_the_function_says_so_truly(name, tokens):
    bundle = make_bundle("llama")
    with torch.no_grad():
        before = bundle.module(tokens).logits
        attach(name, bundle)
        assert not torch.allclose(bundle.module(tokens).logits, before, atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", EXPORTED)
def test_export_is_a_stock_peft_adapter_on_the_untouched_model(name, architecture, tokens, tmp_path):
    bundle = make_bundle(architecture)
    untouched = copy.deepcopy(bundle.module)
    method, adapter = attach(name, bundle)
    perturb(adapter)
    export_adapter(tmp_path / "adapter", method.export(adapter), bundle.module, "language", (), "base")
    loaded = PeftModel.from_pretrained(untouched, tmp_path / "adapter").eval()
    with torch.no_grad():
        trained = bundle.module(tokens).logits
        assert (loaded(tokens).logits - trained).abs().max() <= 1e-5
        with loaded.disable_adapter():
            assert (loaded(tokens).logits - trained).abs().max() > 1e-3  # the adapter does something


@pytest.mark.parametrize("architecture", ["llama_tied_head", "gpt2_conv1d"])
@pytest.mark.parametrize("name", with_attribute("exports_adapter", False))
def test_what_is_no_adapter_is_a_checkpoint_of_stock_transformers(name, architecture, tokens, tmp_path):
    bundle = make_bundle(architecture)
    _, adapter = attach(name, bundle)
    perturb(adapter)
    with torch.no_grad():
        trained = bundle.module(tokens).logits
        with adapter.plain_model():
            bundle.module.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert (loaded(tokens).logits - trained).abs().max() <= 2e-5
        assert torch.equal(bundle.module(tokens).logits, trained)  # training can go on


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", EXPORTED)
def test_merging_computes_the_same_and_is_undone_exactly(name, architecture, tokens):
    bundle = make_bundle(architecture)
    _, adapter = attach(name, bundle)
    perturb(adapter)
    with torch.no_grad():
        unmerged = bundle.module(tokens).logits
        with adapter.merged():
            assert torch.allclose(bundle.module(tokens).logits, unmerged, atol=2e-5)
        assert torch.equal(bundle.module(tokens).logits, unmerged)


@pytest.mark.parametrize("name", EXPORTED)
def test_only_adapter_parameters_train(name):
    bundle = make_bundle("llama")
    total = sum(p.numel() for p in bundle.module.parameters())
    method, adapter = attach(name, bundle)
    trained = adapter.trained()
    allowed = {*method.trained, "magnitude"} if getattr(method, "magnitude", None) else {*method.trained}
    assert trained
    for parameter_name in trained:
        assert parameter_name.rpartition(".")[2] in allowed
    assert adapter.trainable_parameters() < total
    loss = bundle.module(torch.randint(3, 60, (2, 9)), labels=torch.randint(3, 60, (2, 9))).loss
    loss.backward()
    assert all(p.grad is None for p in bundle.module.parameters() if not p.requires_grad)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())


@pytest.mark.parametrize("name", method_names())
def test_another_learning_rate_for_b_has_an_effect_where_the_method_trains_b(name):
    """Where it has none, a run refuses it (`eva_bench/run/prepare.py`)."""
    bundle = make_bundle("llama")
    method, adapter = attach(name, bundle)
    groups = method.parameter_groups(adapter, train_settings(lr=1e-3, lr_ratio=7))
    rates = {round(group["lr"] / 1e-3) for group in groups}
    ratio = getattr(method, "lr_ratio", 7)
    assert (ratio in rates) == ("B" in method.trained)


@pytest.mark.parametrize("name", method_names())
def test_same_seed_same_bytes(name):
    states = []
    for _ in range(2):
        bundle = make_bundle("llama")
        states.append(attach(name, bundle)[1].state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", [name for name in with_attribute("fixed_rank") if name in EXPORTED])
def test_rank_budget_is_kept(name):
    bundle = make_bundle("llama")
    _, adapter = attach(name, bundle)
    ranks = adapter.ranks()
    assert sum(ranks.values()) == 4 * len(bundle.targets)
    assert min(ranks.values()) > 0


@pytest.mark.parametrize("name", [n for n in method_names() if "rank" in method_values(n)])
def test_a_rank_larger_than_a_layer_is_refused_by_name(name):
    bundle = make_bundle("llama")
    with pytest.raises(UserError, match=r"rank 40 is larger than layer 'model\.layers\.0\."):
        make_method(method_values(name) | {"rank": 40}).check(bundle)


@pytest.mark.parametrize("name", method_names())
def test_state_survives_a_round_trip(name, tokens):
    bundle, again = make_bundle("llama"), make_bundle("llama")
    _, adapter = attach(name, bundle)
    perturb(adapter)
    _, second = attach(name, again)
    second.load_state_dict(adapter.state_dict())
    with torch.no_grad():
        assert torch.equal(bundle.module(tokens).logits, again.module(tokens).logits)


@pytest.mark.parametrize("name", method_names())
def test_misspelt_and_wrong_values_are_refused(name):
    with pytest.raises(UserError, match="unknown key 'rankk'"):
        make_method(method_values(name) | {"rankk": 3})
    values = method_values(name)
    if "rank" in values:
        with pytest.raises(UserError, match="rank="):
            make_method(values | {"rank": "many"})


@pytest.mark.parametrize("name", method_names())
def test_every_method_has_a_page(name):
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    assert "ifference" in page and len(page) > 300
    assert page.partition("\n## Cost and export\n")[2].partition("\n## ")[0].strip()
    assert "hoose it" in page  # what a user would pick it for


def test_help_lists_every_method_once_and_in_a_group_of_its_own_file():
    groups = methods_by_group()
    assert sorted(name for names in groups.values() for name in names) == method_names()
    assert "others" not in groups
    assert "eva_dora" in groups["data-driven"] and "eva_rot" not in groups["data-driven"]
    assert all(f"  {title}: {names[0]}" in help_text() for title, names in groups.items())
