"""Methods that do something of their own at every step: AdaLoRA's budget, NoRA+'s preconditioning."""

import copy

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model

from baselines.adalora import Budget
from eva_bench.system.errors import UserError
from tests.conftest import method_values
from tests.contract.test_methods import attach, make_bundle
from tests.settings import make_method, train_settings

STEPS = 12


def train(method, bundle, adapter, steps, total=STEPS, optimizer=None, first=0):
    """A few steps on random tokens; returns the optimiser."""
    optimizer = optimizer or method.optimizer(adapter, method.parameter_groups(adapter, train_settings(lr=1e-2)), total)
    for step in range(first, first + steps):
        tokens = torch.randint(3, 60, (4, 12), generator=torch.Generator().manual_seed(step))
        loss = bundle.module(tokens, labels=tokens).loss
        if (penalty := method.penalty(adapter, 1e-2)) is not None:
            loss = loss + penalty
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return optimizer


def alive(adapter):
    return sum(int((layer.s != 0).sum()) for layer in adapter.layers.values())


def test_the_budget_follows_the_cubic_curve_and_ends_at_the_rank():
    bundle = make_bundle("llama")
    method, adapter = attach("adalora", bundle)
    n = len(adapter.layers)
    assert {layer.factors().rank for layer in adapter.layers.values()} == {6}
    optimizer, counts = None, []
    for step in range(STEPS):
        optimizer = train(method, bundle, adapter, 1, optimizer=optimizer, first=step)
        counts.append(alive(adapter))
    # warm-up: 1 step; final phase: 6 steps; between them 5 selections, the last one at step 6
    expected = [6 * n] + [int(2 * n * (1 - k / 5) ** 3 + 4 * n) for k in range(1, 6)] + 6 * [4 * n]
    assert counts == expected
    exported = method.export(adapter)
    assert sum(int((f.B.norm(dim=0) > 0).sum()) for f in exported.values()) == 4 * n
    assert len({f.rank for f in exported.values()}) > 1  # ranks have moved between layers


def test_importance_is_that_of_peft():
    """The same gradients into PEFT's allocator and ours: the same scores."""
    bundle = make_bundle("llama")
    config = AdaLoraConfig(
        init_r=6, target_r=4, lora_alpha=6, tinit=0, tfinal=1, total_step=STEPS, target_modules=list(bundle.targets)
    )
    theirs = get_peft_model(copy.deepcopy(bundle.module), config)
    method, adapter = attach("adalora", bundle)
    allocator = theirs.base_model.rankallocator
    optimizer = method.optimizer(adapter, method.parameter_groups(adapter, train_settings(lr=1e-2)), STEPS)
    ours = Budget(method, adapter, STEPS)
    pairs = {name: (theirs.base_model.model.get_submodule(name), layer) for name, layer in adapter.layers.items()}
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        for peft_layer, layer in pairs.values():
            for ours_p, peft_p in (
                (layer.s, peft_layer.lora_E["default"]),
                (layer.A, peft_layer.lora_A["default"]),
                (layer.B, peft_layer.lora_B["default"]),
            ):
                ours_p.data = torch.randn(ours_p.shape, generator=generator)
                ours_p.grad = torch.randn(ours_p.shape, generator=generator)
                peft_p.data, peft_p.grad = ours_p.data.reshape(peft_p.shape), ours_p.grad.reshape(peft_p.shape)
        allocator.update_ipt(theirs.base_model)
        scores = {name: ours._scores(optimizer, layer) for name, (_, layer) in pairs.items()}
    for name, score in scores.items():
        key = next(k for k in allocator.exp_avg_ipt if k.endswith(f"{name}.lora_E.default"))
        parts = {part: allocator._element_score(key.replace("lora_E", f"lora_{part}")) for part in "EAB"}
        expected = parts["E"][:, 0] + parts["A"].mean(dim=1) + parts["B"].mean(dim=0)
        assert torch.allclose(score, expected, rtol=1e-5)


def test_a_resumed_training_is_the_same_to_the_bit():
    states = []
    for interrupted in (False, True):
        bundle = make_bundle("llama")
        method, adapter = attach("adalora", bundle)
        if not interrupted:
            train(method, bundle, adapter, STEPS)
        else:
            first = train(method, bundle, adapter, 8)
            saved, weights = copy.deepcopy(first.state_dict()), adapter.state_dict()
            bundle = make_bundle("llama")
            method, adapter = attach("adalora", bundle)
            adapter.load_state_dict(weights)
            second = method.optimizer(adapter, method.parameter_groups(adapter, train_settings(lr=1e-2)), STEPS)
            second.load_state_dict(saved)
            train(method, bundle, adapter, 4, optimizer=second, first=8)
        states.append(adapter.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_training_too_short_for_the_schedule_is_refused():
    method = make_method(method_values("adalora", interval=10))
    with pytest.raises(UserError, match=r"12 steps are too few for AdaLoRA: .* between step 1 and step 6"):
        method.check_steps(STEPS)
    with pytest.raises(UserError, match=r"22 steps are too few for AdaLoRA: .* between step 2 and step 11"):
        method.check_steps(22)
    method.check_steps(24)  # between step 2 and step 12


def test_nora_plus_preconditions_by_the_other_factor():
    bundle = make_bundle("llama")
    method, adapter = attach("nora_plus", bundle)
    optimizer = method.optimizer(adapter, method.parameter_groups(adapter, train_settings(lr=1e-2)), STEPS)
    layer = next(iter(adapter.layers.values()))
    layer.A.grad, layer.B.grad = torch.randn_like(layer.A), torch.randn_like(layer.B)
    before, grad_A, grad_B = layer.A.detach().double().clone(), layer.A.grad.clone(), layer.B.grad.clone()
    optimizer.step()
    assert torch.equal(layer.A.grad, grad_A)  # B is zero: A's gradient stays
    inverse = torch.linalg.inv(before @ before.T + 1e-6 * torch.eye(4).double())
    expected = grad_B.double() @ inverse / inverse.norm()
    assert torch.allclose(layer.B.grad.double(), expected, rtol=1e-3, atol=1e-5)
    layer.A.grad = grad_A.clone()
    B = layer.B.detach().double().clone()
    optimizer.step()
    inverse = torch.linalg.inv(B.T @ B + 1e-6 * torch.eye(4).double())
    assert torch.allclose(layer.A.grad.double(), inverse @ grad_A.double() / inverse.norm(), rtol=1e-2, atol=1e-4)
