"""What the engine counts, on which kinds of layers and inputs, and what it refuses."""

import pytest
import torch
from torch import nn

from eva_bench.eva import EvaError
from tests.conftest import FixedBatches, tiny_gpt2, tiny_llama
from tests.eva import subspaces

QKV = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj"]
MLP = ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"]


def record_inputs(module: nn.Module, names, batches) -> dict[str, torch.Tensor]:
    """All inputs of the layers that are not padding, (n, in) float64, by plain hooks."""
    kept = {name: [] for name in names}
    mask = None
    handles = [
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: kept[name].append(args[0][mask])
        )
        for name in names
    ]
    with torch.no_grad():
        for batch in batches:
            mask = batch["attention_mask"].bool()
            module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for handle in handles:
        handle.remove()
    return {name: torch.cat(rows).double() for name, rows in kept.items()}


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules())


@pytest.mark.parametrize("solver", ["exact", "sketch"])
def test_every_real_row_and_no_padding_is_counted(solver):
    module, batches = tiny_llama(), FixedBatches()
    result = subspaces(module, QKV + MLP, batches, components=4, solver=solver, tolerance=0)
    rows = record_inputs(module, QKV + MLP, batches)
    for name, layer in result.layers.items():
        covariance = torch.cov(rows[name].T)
        assert layer.rows == len(rows[name]) == 6 * (4 * 20 - 5)
        assert layer.total_variance == pytest.approx(float(covariance.trace()), rel=1e-4)
        captured = (layer.components.double() @ covariance * layer.components.double()).sum()
        best = torch.linalg.eigvalsh(covariance)[-4:].sum()
        assert captured / best > (0.9999 if solver == "exact" else 0.97)
        assert torch.allclose(layer.components @ layer.components.T, torch.eye(4), atol=1e-5)
        assert (layer.eigenvalues.diff() <= 0).all()


def test_padding_is_cut_off_and_changes_nothing():
    module, batches = tiny_llama(), list(FixedBatches())
    wide = [{key: nn.functional.pad(value, (0, 30)) for key, value in batch.items()} for batch in batches]
    narrow, padded = (subspaces(module, QKV, data, components=4) for data in (batches, wide))
    assert torch.equal(narrow.layers[QKV[0]].components, padded.layers[QKV[0]].components)


def test_label_mask_keeps_only_labelled_positions():
    batches = list(FixedBatches())
    for batch in batches:
        batch["labels"][:, :10] = -100
    result = subspaces(tiny_llama(), QKV, batches, components=4, use_label_mask=True, tolerance=0)
    assert result.rows == 6 * (3 * 10 + 5)


def test_shared_inputs_are_computed_once():
    result = subspaces(tiny_llama(), QKV + MLP, FixedBatches(), components=4)
    groups = {name: layer.group for name, layer in result.layers.items()}
    assert [groups[name] for name in QKV] == [QKV[0]] * 3
    assert [groups[name] for name in MLP] == [MLP[0], MLP[0], MLP[2]]
    assert torch.equal(result.layers[QKV[0]].components, result.layers[QKV[2]].components)


def test_the_forward_pass_stops_after_the_last_target_and_leaves_no_trace():
    module = tiny_llama().train()
    runs = []
    handle = module.lm_head.register_forward_hook(lambda *_: runs.append(1))
    subspaces(module, QKV, FixedBatches(), components=4, tolerance=0)
    assert len(runs) == 1  # only the first pass, which finds out where it may stop
    handle.remove()
    assert module.training and module.config.use_cache and hooks(module) == 0


def test_hooks_are_removed_when_the_model_fails():
    module = tiny_llama()
    with pytest.raises(IndexError):
        subspaces(module, QKV, [{"input_ids": torch.full((2, 9), 999)}], components=4)
    assert hooks(module) == 0


def test_language_model_head_can_be_a_target():
    result = subspaces(tiny_llama(), ["lm_head"], FixedBatches(), components=4)
    assert result.layers["lm_head"].components.shape == (4, 32)


def test_conv1d_has_its_input_width_first():
    names = ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"]
    result = subspaces(tiny_gpt2(), names, FixedBatches(), components=4)
    assert [result.layers[name].components.shape[1] for name in names] == [32, 128]


def test_bert_pooler_has_one_row_per_sequence():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    names = ["encoder.layer.0.attention.self.query", "pooler.dense"]
    result = subspaces(BertModel(config), names, FixedBatches(), components=4, tolerance=0)
    assert result.layers["pooler.dense"].rows == 6 * 4
    assert result.layers[names[0]].rows == 6 * 75


class Images(nn.Module):
    """A layer on (batch, height, width, channels) and one on what is left of it."""

    def __init__(self):
        super().__init__()
        self.patch, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.relu(self.patch(x)).mean((1, 2)))


def test_four_dimensional_inputs_count_every_position():
    batches = [torch.randn(8, 3, 4, 6) for _ in range(5)]
    result = subspaces(Images(), ["patch", "head"], batches, components=2, tolerance=0)
    assert result.layers["patch"].rows == 5 * 8 * 12
    assert result.layers["head"].rows == 5 * 8


def test_masks_apply_to_the_inputs_whose_shape_they_have():
    states, fused = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 15, dtype=torch.bool)
    states[0, 3:], fused[0, 9:] = False, False

    class Trajectories(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.block = nn.Linear(4, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.block(self.embed(x).repeat_interleave(3, 1))

    batches = [torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    result = subspaces(
        Trajectories(), ["embed", "block"], batches, components=2, row_mask=lambda batch: (states, fused), tolerance=0
    )
    assert result.layers["embed"].rows == 4 * 8
    assert result.layers["block"].rows == 4 * 24


def test_same_seed_same_bytes_and_global_randomness_untouched():
    module, state = tiny_llama(), torch.get_rng_state()
    first, second = (subspaces(module, MLP, FixedBatches(), components=4, solver="sketch") for _ in "ab")
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.layers[MLP[2]].components, second.layers[MLP[2]].components)


def test_reading_stops_at_the_tolerance_or_the_cap():
    endless = lambda: iter(lambda: torch.randn(64, 3, 2, 6), None)  # noqa: E731
    torch.manual_seed(0)
    converged = subspaces(
        Images(), ["patch"], endless, components=2, tolerance=0.05, layer_tolerance=0.05, min_batches=4
    )
    assert (
        converged.converged and converged.stopped == "tolerance" and converged.gap <= 0.05 and converged.batches < 400
    )
    capped = subspaces(Images(), ["patch"], endless, components=2, tolerance=0, max_batches=12)
    assert not capped.converged and capped.stopped == "cap" and capped.batches == 12


def test_second_pass_improves_the_sketch():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(200, 64, generator=generator) * torch.arange(1, 65).pow(-0.5) for _ in range(6)]
    model, every = nn.Sequential(nn.Linear(64, 2)), torch.cat(batches).T.double()

    def captured(**options):
        result = subspaces(model, ["0"], batches, components=8, solver="sketch", tolerance=0, **options)
        components = result.layers["0"].components.double()
        return float((components @ torch.cov(every) * components).sum())

    assert captured(second_pass=True) > captured()
    with pytest.raises(EvaError, match="only once"):
        subspaces(model, ["0"], iter(batches), components=8, solver="sketch", second_pass=True)


def test_bf16_models_are_summed_in_float32():
    module, batches = tiny_llama(), FixedBatches()
    exact = subspaces(module, MLP, batches, components=4, tolerance=0)
    low = subspaces(module.to(torch.bfloat16), MLP, batches, components=4, tolerance=0)
    for name in MLP:
        assert low.layers[name].components.dtype == torch.float32
        assert low.explained_variance[name] == pytest.approx(exact.explained_variance[name], rel=2e-3)


def bad_model():
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.used(x)

    return Bad()


class Quantised(nn.Linear):
    """Weight in bytes, as bitsandbytes stores it; its shape says nothing about the layer's."""

    def __init__(self, width: int):
        super().__init__(width, width)
        self.weight = nn.Parameter(torch.zeros(width * width // 2, 1, dtype=torch.uint8), requires_grad=False)

    def forward(self, x):
        return x


def test_quantised_layers_need_only_their_forward_pass():
    result = subspaces(nn.Sequential(Quantised(6)), ["0"], GOOD, components=2, tolerance=0)
    plain = subspaces(nn.Sequential(nn.Linear(6, 6)), ["0"], GOOD, components=2, tolerance=0)
    assert torch.equal(result.layers["0"].components, plain.layers["0"].components)


GOOD = [torch.randn(20, 6, generator=torch.Generator().manual_seed(i)) for i in range(4)]


@pytest.mark.parametrize("solver", ["exact", "incremental"])
@pytest.mark.parametrize(
    ("model", "targets", "batches", "components", "message"),
    [
        (bad_model, ["used"], [], 2, "empty"),
        (bad_model, ["used", "unused"], GOOD, 2, "'unused' never ran"),
        (bad_model, ["used"], [torch.full((20, 6), torch.nan)], 2, "'used' contain NaN"),
        (bad_model, ["used"], [GOOD[0][:3]], 5, "'used'"),
        (bad_model, ["used"], GOOD, 7, "'used' has 6 inputs"),
        (lambda: nn.Sequential(nn.Embedding(6, 6)), ["0"], GOOD, 2, "'0' is a Embedding"),
        (bad_model, ["wrong"], GOOD, 2, "no layer named 'wrong'"),
        (lambda: nn.Sequential(nn.Conv1d(6, 6, 1)), ["0"], GOOD, 2, "'0' is a Conv1d"),
    ],
)
def test_bad_input_is_named(solver, model, targets, batches, components, message):
    with pytest.raises(EvaError, match=message):
        subspaces(model(), targets, batches, components=components, solver=solver, max_batches=8)


def test_the_incremental_solver_needs_batches_it_can_read_again():
    with pytest.raises(EvaError, match="only once"):
        subspaces(bad_model(), ["used"], iter(GOOD[:1]), components=2, solver="incremental", tau=1.0)
    with pytest.raises(EvaError, match="solver"):
        subspaces(bad_model(), ["used"], GOOD, components=2, solver="magic")
