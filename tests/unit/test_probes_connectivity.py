"""Paths and merging by hand; permutations that change no output, and the search that finds planted ones."""

import copy

import pytest
import timm
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import RobertaConfig, RobertaForSequenceClassification

from eva_bench.methods.layer import Factors
from eva_bench.models.vision import split_fused
from eva_bench.probes import connectivity, permutations
from eva_bench.system.errors import UserError
from tests.conftest import tiny_gpt2, tiny_llama


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, initializer_range=0.2, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def roberta():
    config = RobertaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=3,
        max_position_embeddings=40, initializer_range=0.2, pad_token_id=1,
    )  # fmt: skip
    return RobertaForSequenceClassification(config).eval()


def vision():
    shape = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
    return split_fused(timm.create_model("vit_tiny_patch16_224", global_pool="token", **shape)).eval()


MAKERS = {"llama": llama, "roberta": roberta, "vision": vision}


def random_model(kind: str, seed: int):
    """A model whose biases and norms are not all alike."""
    torch.manual_seed(seed)
    module = MAKERS[kind]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return module


def output(module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        if hasattr(module, "patch_embed"):
            return module(torch.randn(3, 3, 16, 16, generator=generator))
        return module(torch.randint(3, 60, (3, 11), generator=generator)).logits


def random_permutations(module, units, seed: int):
    """Any permutation of residual and MLP units; of attention heads, and within each where positions allow."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {}
    for name, parameter in module.named_parameters():
        sizes |= {group: size for group, size in zip(units.axes[name], parameter.shape, strict=True) if group}

    def shuffled(n):
        return torch.randperm(n, generator=generator)

    found = {}
    for group in units.groups:
        if not group.startswith("vo"):
            found[group] = shuffled(sizes[group])
            continue
        size, heads = sizes[group] // units.heads, shuffled(units.heads)
        for part, fixed in ((group, False), (group.replace("vo", "qk"), units.rotary)):
            inner = [torch.arange(size) if fixed else shuffled(size) for _ in range(units.heads)]
            found[part] = torch.cat([size * head + order for head, order in zip(heads.tolist(), inner, strict=True)])
    return found


@pytest.mark.parametrize("kind", MAKERS)
def test_permuted_units_compute_the_same_function(kind):
    module = random_model(kind, 0)
    units = permutations.wiring(module)
    expected, state = output(module), connectivity.read_state(module)
    planted = random_permutations(module, units, 3)
    connectivity.write_state(module, permutations.permute(state, planted, units.axes))
    torch.testing.assert_close(output(module), expected, rtol=1e-4, atol=1e-4)
    for group, order in planted.items():  # each of them moves something
        assert units.rotary or not torch.equal(order, torch.arange(len(order)))
        alone = permutations.permute(state, {group: order}, units.axes)
        assert any(not torch.equal(alone[name], state[name]) for name in state)


@pytest.mark.parametrize("kind", MAKERS)
def test_weight_matching_finds_planted_permutations(kind):
    module = random_model(kind, 0)
    units = permutations.wiring(module)
    first = connectivity.read_state(module)
    planted = random_permutations(module, units, 3)
    generator = torch.Generator().manual_seed(4)
    noisy = {name: value + 0.02 * torch.randn(value.shape, generator=generator) for name, value in first.items()}
    second = permutations.permute(noisy, planted, units.axes)
    found = permutations.match(first, second, units, seed=0)
    undone = permutations.permute(second, found, units.axes)
    for name in first:
        torch.testing.assert_close(undone[name], noisy[name], rtol=0, atol=0)
    assert set(found) == set(planted)


@pytest.mark.parametrize("kind", MAKERS)
def test_fine_tunes_of_one_base_need_no_permutation(kind):
    module = random_model(kind, 0)
    units, base = permutations.wiring(module), connectivity.read_state(module)
    generator = torch.Generator().manual_seed(1)
    tuned = [{n: v + 0.05 * torch.randn(v.shape, generator=generator) for n, v in base.items()} for _ in range(2)]
    for order in permutations.match(*tuned, units, seed=0).values():
        assert torch.equal(order, torch.arange(len(order)))


def test_matching_never_lowers_the_inner_product():
    first, second = (connectivity.read_state(random_model("vision", seed)) for seed in (0, 1))
    units = permutations.wiring(vision())

    def product(state):
        return sum(float((first[name].double() * state[name]).sum()) for name in first)

    gains = [product(second)]
    for sweeps in (1, 2, 50):
        found = permutations.match(first, second, units, seed=0, sweeps=sweeps)
        gains.append(product(permutations.permute(second, found, units.axes)))
    assert gains == sorted(gains) and gains[1] > gains[0] + 1


def test_unknown_architectures_are_refused():
    with pytest.raises(UserError, match="'gpt2' are not known"):
        permutations.wiring(tiny_gpt2())
    with pytest.raises(UserError, match="share their keys"):
        permutations.wiring(tiny_llama())


def test_barrier_is_the_rise_above_the_straight_line():
    assert connectivity.barrier([1.0, 2.0, 3.0]) == 0
    assert connectivity.barrier([1.0, 5.0, 3.0]) == 3
    assert connectivity.barrier([1.0, 1.0, 3.0]) == 0  # below the line: no barrier, and not a negative one
    assert connectivity.barrier([0.0, 1.0, 4.0, 3.0, 4.0]) == pytest.approx(2.0)


def test_a_path_through_a_known_loss():
    first, second = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
    values = connectivity.path(first, second, lambda state: float(state["w"].prod()), 5)
    assert values == pytest.approx([t * (1 - t) for t in (0, 0.25, 0.5, 0.75, 1)])
    assert connectivity.barrier(values) == pytest.approx(0.25)
    three = connectivity.merge([first, second, {"w": torch.tensor([2.0, 2.0])}])
    torch.testing.assert_close(three["w"], torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(connectivity.merge([first, second], (3, -1))["w"], torch.tensor([3.0, -1.0]))


def test_updates_are_mixed_as_by_pefts_cat_and_factors_as_by_its_linear():
    model = get_peft_model(tiny_llama(), LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"]), "a")
    model.add_adapter("b", LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"]))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    generator, parts = torch.Generator().manual_seed(0), []
    for name in ("a", "b"):
        for factor in (layer.lora_A[name], layer.lora_B[name]):
            factor.weight.data = torch.randn(factor.weight.shape, generator=generator)
        parts.append(Factors(layer.lora_A[name].weight.data, layer.lora_B[name].weight.data, scale=2.0))
    model.add_weighted_adapter(["a", "b"], [0.3, 0.7], "mixed", combination_type="cat")
    torch.testing.assert_close(connectivity.mixed_update(*parts, 0.7), layer.get_delta_weight("mixed").detach())
    turned = Factors(-parts[0].A, -parts[0].B, scale=2.0)  # the same update in another basis
    torch.testing.assert_close(connectivity.mixed_update(parts[0], turned, 0.5), parts[0].delta())
    assert connectivity.mixed_factors(parts[0], turned, 0.5).norm() == 0
    torch.testing.assert_close(connectivity.mixed_factors(parts[0], parts[0], 0.4), parts[0].delta())


def test_alignment_of_singular_vectors():
    U, V = (torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(n)))[0] for n in (5, 4))
    S = torch.tensor([4.0, 3.0, 2.0, 1.0])
    first = U[:, :4] * S @ V
    assert connectivity.alignment(first, 3 * first) == pytest.approx(1, abs=1e-5)
    swapped = U[:, [1, 0, 2, 3]] * S @ V[[1, 0, 2, 3]]  # the two leading components have changed places
    assert connectivity.alignment(first, swapped) == pytest.approx(3 / 10, abs=1e-5)
    half = U[:, [0, 4, 2, 3]] * S @ V  # one left vector is new
    assert connectivity.alignment(first, half) == pytest.approx(7 / 10, abs=1e-5)


def test_the_straight_through_estimator_lowers_the_loss_half_way():
    first, second = random_model("vision", 0), random_model("vision", 1)
    units, module = permutations.wiring(first), copy.deepcopy(first)
    generator = torch.Generator().manual_seed(2)
    images, labels = torch.randn(16, 3, 16, 16, generator=generator), torch.arange(16) % 5
    states = [connectivity.read_state(model) for model in (first, second)]

    def loss():
        return F.cross_entropy(module(images), labels)

    found, losses = connectivity.straight_through(*states, units, module, loss, steps=8, lr=0.05, seed=0)
    matched = permutations.match(*states, units, 0)
    connectivity.write_state(
        module, connectivity.merge((states[0], permutations.permute(states[1], matched, units.axes)))
    )
    assert losses[0] == pytest.approx(float(loss()), abs=1e-5)  # it starts from weight matching
    connectivity.write_state(
        module, connectivity.merge((states[0], permutations.permute(states[1], found, units.axes)))
    )
    assert float(loss()) == pytest.approx(min(losses), abs=1e-5)
    assert min(losses) < losses[0]
