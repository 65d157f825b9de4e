"""Intruders, geometry, variation and ranks on small matrices whose answers are known or computed another way."""

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import intruders as peft_intruders

from eva_bench.probes import geometry, intruders, low_rank, variation
from eva_bench.probes.trained import Layer
from tests.conftest import tiny_llama


def orthogonal(n: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed).normal(size=(n, n))
    return torch.from_numpy(np.linalg.qr(random)[0]).float()


def known(values=(9.0, 7.0, 5.0, 3.0, 2.0, 1.0), out=10, seed=0):
    """A base (out, in) whose left vectors are the first columns of U; the other columns of U stay free."""
    U, V = orthogonal(out, seed), orthogonal(len(values), seed + 1)
    return U, torch.tensor(values), V, U[:, : len(values)] * torch.tensor(values) @ V


def test_a_planted_direction_outside_the_base_is_the_only_intruder():
    U, _, V, base = known()
    update = 20 * torch.outer(U[:, 8], V[5])  # a left vector that the base lacks becomes the leading one
    layer = Layer(base, update)
    found = intruders.similarities(layer, 5)
    # On the span of V[5], W V[5] = 1 u_5 + 20 u_8: its cosine with the nearest base vector is 1 / sqrt(401).
    assert found[0] == pytest.approx(1 / math.sqrt(401), abs=1e-5)
    torch.testing.assert_close(found[1:], torch.ones(4), rtol=0, atol=1e-5)
    assert intruders.count(found) == 1
    assert intruders.sweep(found, (1, 5), (0.04, 0.5)) == {
        "k=1 epsilon=0.04": 0, "k=1 epsilon=0.5": 1, "k=5 epsilon=0.04": 0, "k=5 epsilon=0.5": 1,
    }  # fmt: skip


def test_an_update_along_the_base_makes_no_intruder_and_left_vectors_are_compared():
    U, _, V, base = known()
    assert intruders.count(intruders.similarities(Layer(base, 20 * torch.outer(U[:, 3], V[3])))) == 0
    # A new right vector with an old left one is no intruder: only left vectors count.
    wide = torch.cat([base, torch.zeros(10, 2)], dim=1)
    right = torch.zeros(8)
    right[7] = 1.0
    assert intruders.count(intruders.similarities(Layer(wide, 20 * torch.outer(U[:, 3], right)))) == 0


def test_mitigation_scales_the_top_intruder_and_nothing_else():
    U, _, V, base = known()
    layer = Layer(base, 20 * torch.outer(U[:, 8], V[5]))
    before = np.linalg.svd(layer.tuned.double().numpy())
    for factor in (0.0, 0.3, 1.0):
        after = np.linalg.svd(intruders.mitigated(layer, factor).double().numpy())
        expected = sorted([factor * before.S[0], *before.S[1:]], reverse=True)
        np.testing.assert_allclose(after.S, expected, atol=1e-5)
    assert before.S[0] == pytest.approx(math.sqrt(401), abs=1e-5)
    untouched = Layer(base, 20 * torch.outer(U[:, 3], V[3]))
    torch.testing.assert_close(intruders.mitigated(untouched, 0.0), untouched.tuned)


def test_of_two_intruders_the_one_with_the_larger_singular_value_is_scaled():
    U, _, V, base = known()
    layer = Layer(base, 20 * torch.outer(U[:, 8], V[5]) + 15 * torch.outer(U[:, 9], V[4]))
    assert intruders.count(intruders.similarities(layer)) == 2
    before, after = (np.linalg.svd(w.double().numpy()).S for w in (layer.tuned, intruders.mitigated(layer, 0.5)))
    np.testing.assert_allclose(after, sorted([before[0] / 2, *before[1:]], reverse=True), atol=1e-5)


def test_counts_agree_with_pefts_own():
    targets = ["q_proj", "o_proj", "down_proj"]
    model = get_peft_model(tiny_llama(), LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    generator = torch.Generator().manual_seed(1)
    lines, counted = [], {}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_B"):
            weight = layer.lora_B["default"].weight
            weight.data = torch.randn(weight.shape, generator=generator)
            pair = Layer(layer.base_layer.weight.data, layer.get_delta_weight("default").data)
            counted[name] = intruders.count(intruders.similarities(pair))
    peft_intruders.reduce_intruder_dimension(model, logging_sink=lines.append)
    told = (line.split(": ") for line in lines[:-1])  # "<layer>: Intruders: 3" or "<layer>: No intruders"
    theirs = {name: int(count[0]) if count else 0 for name, _, *count in told}
    assert counted == theirs
    assert sum(counted.values()) > 0


def test_sizes_of_an_update():
    base, update = torch.diag(torch.tensor([4.0, 3.0, 0.0])), torch.diag(torch.tensor([0.0, 2.0, 1.0]))
    found = geometry.size(Layer(base, update))
    assert found == pytest.approx({"frobenius": math.sqrt(5) / 5, "spectral": 0.5, "stable_rank": 5 / 4})
    assert geometry.size(Layer(base, torch.zeros(3, 3)))["stable_rank"] == 0
    assert geometry.stable_rank(torch.eye(7)) == pytest.approx(7)
    assert geometry.where({"a": base, "b": update, "c": 0 * base}) == pytest.approx({"a": 25 / 30, "b": 5 / 30, "c": 0})


def test_shares_of_updates_that_lie_in_one_subspace():
    U, _, V, base = known(out=8)
    inside = U[:, :2] @ torch.tensor([[1.0, 2.0], [3.0, 4.0]]) @ V[:2]
    least = U[:, 4:6] @ torch.tensor([[1.0, 2.0], [3.0, 4.0]]) @ V[4:6]
    beside = torch.outer(U[:, 7], V[0])  # an output that the base does not have
    pissa = geometry.shares(Layer(base, inside), 2)
    assert pissa["pissa"] == pytest.approx(1, abs=1e-5) and pissa["milora"] == pytest.approx(0, abs=1e-5)
    milora = geometry.shares(Layer(base, least), 2)
    assert milora["milora"] == pytest.approx(1, abs=1e-5) and milora["pissa_in"] == pytest.approx(0, abs=1e-5)
    found = geometry.shares(Layer(base, beside), 2, components=V[:3])
    assert found["pissa_out"] == pytest.approx(0, abs=1e-5) and found["pissa_in"] == pytest.approx(1, abs=1e-5)
    assert found["eva_in"] == pytest.approx(1, abs=1e-5)
    assert geometry.shares(Layer(base, beside), 2, components=V[3:5])["eva_in"] == pytest.approx(0, abs=1e-5)
    mixed = geometry.shares(Layer(base, inside / inside.norm() + 2 * least / least.norm()), 2)
    assert mixed["pissa"] == pytest.approx(0.2, abs=1e-5) and mixed["milora"] == pytest.approx(0.8, abs=1e-5)
    assert (found["chance_out"], found["chance_in"]) == (2 / 8, 2 / 6)
    assert geometry.shares(Layer(base, 0 * beside), 2)["pissa"] == 0


def test_shares_of_random_updates_are_what_chance_gives():
    base, generator = known(out=8)[3], torch.Generator().manual_seed(0)
    draws = [geometry.shares(Layer(base, torch.randn(8, 6, generator=generator)), 2) for _ in range(400)]
    for side in ("", "_in", "_out"):
        mean = sum(draw[f"pissa{side}"] for draw in draws) / len(draws)
        assert mean == pytest.approx(draws[0][f"chance{side}"], rel=0.1)


def test_variation_of_a_turn_in_one_plane():
    """Left vectors 0 and 1 turned by an angle, one singular value raised: everything else stays."""
    U, S, V, base = known(out=6)
    angle, turn = 0.3, torch.eye(6)
    turn[0, 0] = turn[1, 1] = math.cos(angle)
    turn[0, 1], turn[1, 0] = -math.sin(angle), math.sin(angle)
    changed = S + torch.tensor([0.6, 0, 0, 0, 0, 0])
    found = variation.variation(Layer(base, U @ turn * changed @ V - base), leading=1)
    assert found["values"] == pytest.approx(0.1, abs=1e-5)
    expected = 1 - ((2 * math.cos(angle) + 4) / 6 + 1) / 2
    assert found["vectors"] == pytest.approx(expected, abs=1e-5)
    assert found["matched"] == pytest.approx(expected, abs=1e-5)
    assert found["subspace"] == pytest.approx(math.sin(angle) ** 2 / 2, abs=1e-5)
    whole = variation.variation(Layer(base, U @ turn * changed @ V - base), leading=2)
    assert whole["subspace"] == pytest.approx(0, abs=1e-5)  # the turn stays within the span of both


def test_a_swap_of_close_components_is_large_by_index_only():
    U, _, V, base = known((9.0, 5.01, 5.0, 1.0), out=4)
    update = 0.02 * torch.outer(U[:, 2], V[2])  # 5.00 becomes 5.02 and overtakes 5.01
    found = variation.variation(Layer(base, update))
    assert found["vectors"] == pytest.approx(0.5, abs=1e-3)
    assert found["matched"] == pytest.approx(0, abs=1e-3)


def test_rank_profile_by_welores_rule():
    values = (10.0, 5.0, 2.17, 2.15, 0.5)  # the third and the fourth around 0.5 + 0.175 * 9.5
    base = known(values, out=5)[3]
    found = low_rank.profile(base)
    assert found["welore"] == 3 and found["share"] == pytest.approx(0.6)
    assert low_rank.profile(base, low_rank.WELORE[0.3])["welore"] == 4
    squares = np.square(values)
    assert found["stable_rank"] == pytest.approx(squares.sum() / 100, rel=1e-5)
    assert found["energy_rank"] == int(np.searchsorted(squares.cumsum() / squares.sum(), 0.9)) + 1
    assert low_rank.energy_rank(torch.zeros(3)) == 0
    assert low_rank.low_rank_layers({"a": 0.3, "b": 0.8, "c": 0.5}) == ("a", "c")


def test_gradient_ranks_of_a_linear_map():
    """The gradient of a squared error by W is the residuals times the inputs: its rank is the number of rows."""
    module = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=False)).requires_grad_(False)
    x = torch.zeros(2, 6)
    x[0, 0], x[1, 3] = 1.0, 1.0
    wanted = torch.zeros(2, 5)
    wanted[0, 1], wanted[1, 2] = 3.0, 1.0
    module[0].weight.zero_()
    found = low_rank.gradients(module, ("0",), lambda: ((module(x) - wanted) ** 2).sum() / 2)["0"]
    assert found == pytest.approx({"stable_rank": 10 / 9, "energy_rank": 1, "norm": math.sqrt(10)})
    assert not module[0].weight.requires_grad
