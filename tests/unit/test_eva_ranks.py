"""Rank redistribution: budget, bounds, order of ties, the four scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_bench.eva import EvaError, LayerSubspace, redistribute_ranks
from eva_bench.eva.ranks import SCORES, component_scores


def subspace(eigenvalues, total=None, group="layer") -> LayerSubspace:
    values = torch.tensor(sorted(eigenvalues, reverse=True), dtype=torch.float32)
    total = float(values.sum()) if total is None else total
    return LayerSubspace(torch.eye(len(values)), values, total, rows=101, group=group)


positive = st.floats(0, 1e4, width=32)


@settings(deadline=None)
@given(
    spectra=st.lists(st.lists(positive, min_size=12, max_size=12), min_size=1, max_size=8),
    rank=st.integers(1, 6),
    rho=st.floats(1, 2),
    score=st.sampled_from(SCORES),
)
def test_budget_is_spent_exactly_and_no_layer_exceeds_its_bound(spectra, rank, rho, score):
    layers = {f"layer{i}": subspace(values) for i, values in enumerate(spectra)}
    ranks = redistribute_ranks(layers, rank=rank, rho=rho, score=score)
    assert list(ranks) == list(layers)
    assert sum(ranks.values()) == rank * len(layers)
    assert all(0 <= r <= round(rank * rho) for r in ranks.values())


@settings(deadline=None)
@given(st.lists(st.lists(positive, min_size=4, max_size=4), min_size=1, max_size=5))
def test_rho_one_keeps_every_rank(spectra):
    layers = {f"layer{i}": subspace(values) for i, values in enumerate(spectra)}
    assert set(redistribute_ranks(layers, rank=4, rho=1).values()) == {4}


@settings(deadline=None)
@given(st.lists(st.lists(positive, min_size=6, max_size=6), min_size=2, max_size=5), st.sampled_from(SCORES))
def test_no_component_left_out_scores_higher_than_one_taken(spectra, score):
    layers = {f"layer{i}": subspace(values) for i, values in enumerate(spectra)}
    ranks = redistribute_ranks(layers, rank=3, rho=2, score=score)
    scores = {name: component_scores(layer, score).tolist() for name, layer in layers.items()}
    taken = [value for name, rank in ranks.items() for value in scores[name][:rank]]
    left = [value for name, rank in ranks.items() for value in scores[name][rank:]]
    assert not left or min(taken) >= max(left)


def test_ties_go_to_the_earlier_layer():
    layers = {"q": subspace([4, 2, 1, 1]), "k": subspace([4, 2, 1, 1]), "v": subspace([4, 2, 1, 1])}
    assert redistribute_ranks(layers, rank=1, rho=4) == {"q": 1, "k": 1, "v": 1}
    ties = {"a": subspace([1, 1, 1, 1]), "b": subspace([1, 1, 1, 1])}
    assert redistribute_ranks(ties, rank=2, rho=2) == {"a": 4, "b": 0}


def test_scores_are_what_the_paper_and_the_code_say():
    layer = subspace([9.0, 4.0, 1.0], total=20.0)  # singular values sqrt(100) * (3, 2, 1)
    assert component_scores(layer, "ratio").tolist() == pytest.approx([0.45, 0.2, 0.05])
    assert component_scores(layer, "raw").tolist() == pytest.approx([9, 4, 1])
    assert component_scores(layer, "max").tolist() == pytest.approx([1, 4 / 9, 1 / 9])
    assert component_scores(layer, "paper").tolist() == pytest.approx([9 / 60, 4 / 60, 1 / 60])


@pytest.mark.parametrize(("rank", "rho", "message"), [(2, 0.5, "rho"), (0, 1, "rank"), (5, 1, "'narrow'")])
def test_impossible_requests_are_refused(rank, rho, message):
    layers = {"narrow": subspace([3, 2, 1]), "wide": subspace([5, 4, 3, 2])}
    with pytest.raises(EvaError, match=message):
        redistribute_ranks(layers, rank=rank, rho=rho)
    with pytest.raises(EvaError, match="score"):
        redistribute_ranks(layers, rank=1, rho=1, score="sum")
