"""EVA-minor where the second moments of all layers do not fit: several passes over the same batches, one result."""

from __future__ import annotations

import pytest
import torch
import yaml

from eva_bench.eva import method as eva_method
from eva_bench.eva import passes
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import find_targets
from tests.conftest import CONF, FixedBatches, method_values, tiny_llama
from tests.settings import make_method

ENDINGS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def minor(monkeypatch, most: float, **changes):
    """EVA-minor's initialisation with so many bytes of moments at once, and the layers of every pass."""
    seen = []

    def compute(*arguments, targets, **options):
        seen.append(targets)
        return real(*arguments, targets=targets, **options)

    real = eva_method.compute_subspaces
    with monkeypatch.context() as patch:
        patch.setattr(passes.passes, "__defaults__", (most,))
        patch.setattr(eva_method, "compute_subspaces", compute)
        method = make_method(method_values("eva_minor", rank=4, alpha=4, max_batches=4, min_batches=4, **changes))
        module = tiny_llama()
        bundle = ModelBundle(module, None, find_targets(module, ENDINGS), "language")
        return method.initialise(bundle, FixedBatches(), 0), seen, bundle.targets


@pytest.mark.parametrize("changes", [{}, {"rho": 2.0}])
def test_several_passes_give_what_one_gives(changes, monkeypatch):
    whole, (only,), targets = minor(monkeypatch, 1e9, **changes)
    parted, seen, _ = minor(monkeypatch, 3 * passes.BYTES * 32**2, **changes)
    assert len(seen) > 3 and only == list(targets) == [name for part in seen for name in part]
    assert list(parted.factors) == list(whole.factors)
    for name, factors in whole.factors.items():
        assert torch.equal(parted.factors[name].A, factors.A)
    for fact in ("batches", "rows", "converged", "stopped", "solver", "explained_variance"):
        assert parted.facts[fact] == whole.facts[fact]


@pytest.mark.parametrize("name", ["llama2_7b", "llama3_1_8b", "gemma2_9b"])
def test_the_moments_of_the_papers_models_fit_beside_their_weights(name):
    """Seven maps a block: six from the hidden states or the heads, one from the MLP's width."""
    shape = yaml.safe_load((CONF / f"model/{name}.yaml").read_text())["architecture"]
    block = [shape["hidden_size"]] * 6 + [shape["intermediate_size"]]
    widths = {f"{i}": width for i, width in enumerate(block * shape["num_hidden_layers"])}
    parts = list(passes.passes(widths))
    sizes = [passes.BYTES * sum(widths[layer] ** 2 for layer in part) for part in parts]
    assert max(sizes) <= 16e9 < 88e9 < sum(sizes)
    assert [layer for part in parts for layer in part] == list(widths)
    assert len(parts) < 2 * sum(sizes) / 16e9 + 1


def test_a_layer_that_is_too_wide_for_a_pass_has_one_of_its_own():
    assert list(passes.passes({"a": 2, "b": 9, "c": 2, "d": 2}, 2 * passes.BYTES * 4)) == [["a"], ["b"], ["c", "d"]]
