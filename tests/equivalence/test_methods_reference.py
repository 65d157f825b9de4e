"""Initial factors against PEFT's where it has the method, else against the formula in float64."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from eva_bench.models.linear import weight_matrix
from eva_bench.system.errors import UserError
from tests.conftest import ARCHITECTURES
from tests.contract.test_methods import attach, make_bundle
from tests.settings import train_settings

RANK, ALPHA = 4, 6.0  # of the contract tests
SCALE = ALPHA / RANK


def peft_layers(bundle, **options):
    """The LoRA layers of stock PEFT around a copy of the model, by the names of the suite."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(bundle.targets), **options)
    model = get_peft_model(copy.deepcopy(bundle.module), config).base_model.model
    return {name: model.get_submodule(name) for name in bundle.targets}


def float64_svd(weight):
    """U, S, V^T of a weight as NumPy finds them: another library, another precision."""
    import numpy

    return (torch.from_numpy(part) for part in numpy.linalg.svd(weight.double().numpy(), full_matrices=False))


def weights(bundle):
    """The untouched weights, (out, in), by layer."""
    return {name: weight_matrix(bundle.module.get_submodule(name)).detach().clone() for name in bundle.targets}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_milora_takes_the_smallest_triplets_out_of_the_weight(architecture):
    bundle = make_bundle(architecture)
    before = weights(bundle)
    _, adapter = attach("milora", bundle)
    for name, layer in adapter.layers.items():
        U, S, V = float64_svd(before[name])
        part = U[:, -RANK:] * S[-RANK:] @ V[-RANK:]
        assert torch.allclose(layer.factors().delta().double(), part, atol=1e-5)
        assert torch.allclose(weight_matrix(layer.base).double(), before[name].double() - part, atol=1e-5)
        assert torch.allclose(layer.A.norm(dim=1).double(), (S[-RANK:] / SCALE).sqrt(), atol=1e-4)


def test_mica_is_that_of_peft():
    bundle = make_bundle("llama")
    theirs = peft_layers(bundle, init_lora_weights="mica")
    _, adapter = attach("mica", bundle)
    for name, layer in adapter.layers.items():
        peft_B = theirs[name].lora_B["default"].weight
        assert torch.allclose(layer.B @ layer.B.T, peft_B @ peft_B.T, atol=1e-5)  # signs are free
        assert layer.A.abs().max() == theirs[name].lora_A["default"].weight.abs().max() == 0
        assert layer.scale == theirs[name].scaling["default"]


def test_orthogonal_has_the_size_of_peft_and_no_product():
    bundle = make_bundle("llama")
    torch.manual_seed(0)
    theirs = peft_layers(bundle, init_lora_weights="orthogonal")
    _, adapter = attach("orthogonal", bundle)
    ours_A = torch.cat([layer.A.flatten() for layer in adapter.layers.values()])
    ours_B = torch.cat([layer.B.flatten() for layer in adapter.layers.values()])
    peft_A = torch.cat([layer.lora_A["default"].weight.flatten() for layer in theirs.values()])
    peft_B = torch.cat([layer.lora_B["default"].weight.flatten() for layer in theirs.values()])
    assert abs(ours_A.std() / peft_A.std() - 1) < 0.1 and abs(ours_B.std() / peft_B.std() - 1) < 0.1
    for layer in adapter.layers.values():
        assert (layer.B @ layer.A).abs().max() < 1e-6 < layer.A.abs().max()
        assert torch.linalg.matrix_rank(layer.A, rtol=1e-5) == RANK // 2


def test_init_ab_draws_both_factors_from_one_distribution():
    bundle = make_bundle("llama")
    _, adapter = attach("lora_init_ab", bundle)
    layer = adapter.layers["model.layers.0.mlp.down_proj"]  # (32, 48)
    for factor in (layer.A, layer.B):
        assert factor.abs().max() <= 1 / math.sqrt(48)
        assert abs(factor.std() * math.sqrt(3 * 48) - 1) < 0.2
    small = attach("lora_init_ab", make_bundle("llama"), size_B=0.5)[1]
    halved = small.layers["model.layers.0.mlp.down_proj"]
    assert torch.equal(halved.A, layer.A) and torch.allclose(2 * halved.B, layer.B)


def test_unit_rows_have_the_directions_of_lora():
    lora = attach("lora", make_bundle("llama"))[1]
    unit = attach("lora_unit_rows", make_bundle("llama"))[1]
    for name, layer in unit.layers.items():
        assert torch.allclose(layer.A.norm(dim=1), torch.ones(RANK))
        cosines = torch.cosine_similarity(layer.A, lora.layers[name].A, dim=1)
        assert torch.allclose(cosines, torch.ones(RANK))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nora_lies_in_the_row_space_of_the_weight_with_the_size_of_the_formula(architecture):
    bundle = make_bundle(architecture)
    with torch.no_grad():  # a weight of rank 3: a sketch cannot leave its rows
        for name in bundle.targets:
            weight = weight_matrix(bundle.module.get_submodule(name))
            weight[3:] = torch.randn(len(weight) - 3, 3) @ weight[:3].clone()
    before = weights(bundle)
    sizes = []
    for seed in range(20):
        other = copy.deepcopy(bundle)
        _, adapter = attach("nora", other, seed=seed)
        for name, layer in adapter.layers.items():
            rows = torch.linalg.svd(before[name].double(), full_matrices=False).Vh[:3]
            assert torch.allclose(layer.A.double() @ rows.T @ rows, layer.A.double(), atol=1e-5)
            sizes.append(layer.A.square().sum() / (before[name].square().sum() * RANK))
    expected = (0.02 / SCALE) ** 2  # E ||Omega W||^2 = r ||W||^2
    assert abs(torch.stack(sizes).mean() / expected - 1) < 0.15


def test_lora_plus_gives_only_b_the_larger_rate():
    method, adapter = attach("lora_plus", make_bundle("llama"))
    groups = method.parameter_groups(adapter, train_settings(lr=1e-3, weight_decay=0.1))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for layer in adapter.layers.values():
        assert rates[id(layer.A)] == 1e-3 and rates[id(layer.B)] == pytest.approx(16e-3)


def test_the_controls_of_eva_keep_what_they_claim_to_keep():
    eva = attach("eva", make_bundle("llama"))[1]
    lora = attach("lora", make_bundle("llama"), rank=4)[1]
    scaled = attach("eva_scaled", make_bundle("llama"))[1]
    random = attach("lora_eva_norms", make_bundle("llama"))[1]
    assert eva.ranks() == scaled.ranks() == random.ranks() and len(set(eva.ranks().values())) > 1
    for name, layer in eva.layers.items():
        cosines = torch.cosine_similarity(scaled.layers[name].A, layer.A, dim=1)
        assert torch.allclose(cosines, torch.ones(layer.factors().rank), atol=1e-5)
        norms = scaled.layers[name].A.norm(dim=1)
        if layer.factors().rank == 4:  # LoRA's draw has the same shape
            assert torch.allclose(norms, lora.layers[name].A.norm(dim=1), atol=1e-5)
        assert 0.4 < norms.mean() < 0.75
        assert torch.allclose(random.layers[name].A.norm(), layer.A.norm(), rtol=1e-5)
        overlap = (random.layers[name].A @ layer.A.T).norm() / (layer.A @ layer.A.T).norm()
        assert overlap < 0.75


def low_rank_by_formula(before, reduction):
    """WeLore's rule with NumPy in float64: the truncation of every layer that loses half of its rank."""
    import numpy

    svds = {name: numpy.linalg.svd(weight.double().numpy(), full_matrices=False) for name, weight in before.items()}
    spectra = {name: (S - S.min()) / (S.max() - S.min()) for name, (_, S, _) in svds.items()}
    grid = numpy.linspace(0, 1, 20001)  # the authors search the threshold on a grid
    total = sum(map(len, spectra.values()))
    lost = [sum(int((t > S).sum()) for S in spectra.values()) / total for t in grid]
    threshold = next(t for t, share in zip(grid, lost, strict=True) if share >= reduction)
    truncated = {}
    for name, (U, S, V) in svds.items():
        rank = int((spectra[name] >= threshold).sum())
        if 1 - rank / len(S) > 0.4999:  # the authors' min_ratio
            truncated[name] = torch.from_numpy(U[:, :rank] * S[:rank] @ V[:rank])
    return truncated


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_welore_is_the_truncation_of_the_layers_that_lose_half_of_their_rank(architecture):
    bundle = make_bundle(architecture)
    before = weights(bundle)
    before.pop("lm_head", None)  # the authors leave the output layer alone
    expected = low_rank_by_formula(before, 0.5)
    assert expected
    _, adapter = attach("welore", bundle)
    assert adapter.layers.keys() == expected.keys()
    for name, layer in adapter.layers.items():
        assert torch.allclose(layer.merged_matrix().double(), expected[name], atol=1e-5)
        assert torch.allclose(layer.A.norm(dim=1), layer.B.norm(dim=0), atol=1e-4)  # S^(1/2) in both
        assert not layer.base.weight.any()


def test_what_welore_and_its_controls_train():
    def trained(name):
        bundle = make_bundle("llama")
        _, adapter = attach(name, bundle)
        return {key.removesuffix(".weight") for key in adapter.trained()}, set(bundle.targets)

    factors, targets = trained("welore")
    low = {name.rpartition(".")[0] for name in factors}
    assert factors == {f"{name}.{part}" for name in low for part in "AB"}
    assert trained("welore_all")[0] == factors | (targets - low)
    assert trained("full_low_rank")[0] == low and trained("full_others")[0] == targets - low


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reduction": 1.5}, "method.reduction=1.5 must be between 0 and 1"),
        ({"layer_reduction": 0.0}, "method.layer_reduction=0 must be between 0 and 1"),
        ({"layer_reduction": 0.99}, "there is no low-rank component to train"),
    ],
)
def test_welore_without_low_rank_components_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        attach("welore", make_bundle("llama"), **changes)
