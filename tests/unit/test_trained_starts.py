"""HRP's preheating and GaLore's optimiser: what they do, and what they leave as it was."""

import copy
import io
from itertools import pairwise

import pytest
import torch

from eva_bench.methods.base import target_layers
from tests.conftest import FixedBatches, method_values
from tests.contract.test_classifiers import load as load_classifier
from tests.contract.test_methods import attach, make_bundle
from tests.settings import make_method, train_settings
from tests.unit.test_training_methods import train
from tests.vision import load_vit


def test_preheating_leaves_the_model_as_it_was_and_finds_what_a_longer_lora_learns():
    bundle = make_bundle("llama")
    before = copy.deepcopy(bundle.module.state_dict())
    bundle.module.train()
    method, _ = attach("hrp", make_bundle("llama"))
    initial = method.initialise(bundle, FixedBatches(), 0)
    assert bundle.module.training and all(p.requires_grad for p in bundle.module.parameters())
    after = bundle.module.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    name = bundle.targets[0]
    A = initial.factors[name].A
    assert torch.allclose(A @ A.T, torch.eye(4), atol=1e-4)
    other = make_bundle("llama")  # preheating by hand
    _, adapter = attach("lora", other, rank=16, alpha=24.0)
    optimizer = torch.optim.AdamW(adapter.trained().values(), lr=1e-3, weight_decay=0.0)
    batches = list(FixedBatches())
    for step in range(32):
        other.module(**batches[step % 6]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    V = torch.linalg.svd((adapter.layers[name].B @ adapter.layers[name].A).detach().double()).Vh[:4]
    assert (A.double() @ V.T).square().sum() > 3.9  # the same subspace


@pytest.mark.parametrize("architecture", ["llama", "gpt2_conv1d", "llama_tied_head", "classifier", "vision"])
def test_galore_projects_the_target_layers_and_nothing_else(architecture):
    kinds = {
        "classifier": lambda: load_classifier("roberta_base", outputs=9),
        "vision": lambda: load_vit("pocket_vision", None),
    }
    bundle = kinds.get(architecture, lambda: make_bundle(architecture))()
    method = make_method(method_values("galore"))
    adapter = method.attach(bundle, None, 0)
    groups = method.parameter_groups(adapter, train_settings(weight_decay=0.1))
    names = {id(parameter): name for name, parameter in bundle.module.named_parameters()}
    projected = sorted(names[id(p)] for group in groups if "rank" in group for p in group["params"])
    # lm_head has the embedding's weight
    assert projected == sorted(f"{name}.weight" for name in bundle.targets if name != "lm_head")
    plain = {names[id(p)] for group in groups if "rank" not in group for p in group["params"]}
    assert plain == set(names.values()) - set(projected)
    heads = [name for name in plain if name.startswith(bundle.head)] if bundle.head else []
    assert bool(heads) == (architecture in kinds)


def test_galore_takes_new_directions_after_every_gap():
    bundle = make_bundle("llama")
    method, adapter = attach("galore", bundle, update_gap=3)
    weight, optimizer, directions = bundle.module.get_submodule(bundle.targets[0]).weight, None, []
    for step in range(6):
        optimizer = train(method, bundle, adapter, 1, optimizer=optimizer, first=step)
        directions.append(optimizer.state[weight]["projector"].ortho_matrix.clone())
    changed = [not torch.equal(one, two) for one, two in pairwise(directions)]
    assert changed == [False, True, False, False, True]  # with steps 3 and 6


def test_galore_moves_linear_weights_by_low_rank_steps_and_resumes():
    bundle = make_bundle("llama")
    method, adapter = attach("galore", bundle)
    before = {name: layer.weight.detach().clone() for name, layer in target_layers(bundle).items()}
    optimizer = train(method, bundle, adapter, 3)
    for name, layer in target_layers(bundle).items():
        change = (layer.weight - before[name]).detach()
        assert 0 < torch.linalg.matrix_rank(change, rtol=1e-3) <= 4
    buffer = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "weights": adapter.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    again = make_bundle("llama")
    method, second = attach("galore", again)
    second.load_state_dict(saved["weights"])
    resumed = method.optimizer(second, method.parameter_groups(second, train_settings(lr=1e-2)), 12)
    resumed.load_state_dict(saved["optimizer"])
    train(method, bundle, adapter, 2, optimizer=optimizer, first=3)
    train(method, again, second, 2, optimizer=resumed, first=3)
    states = adapter.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
