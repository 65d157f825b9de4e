"""Curvature: operators with known spectra, and the Hessian of a small network written out in full."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eva_bench.methods.layer import Adapter, Factors
from eva_bench.probes import curvature
from tests.conftest import tiny_llama


def test_ends_of_a_known_spectrum():
    values = np.array([-3.0, 0.0, 0.5, 1.0, 2.0, 7.0])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    matrix = torch.from_numpy(turn * values @ turn.T)
    found = curvature.lanczos(lambda v: matrix @ v, 6, seed=0)
    assert found.largest == pytest.approx(7, abs=1e-3 * 7) and found.smallest == pytest.approx(-3, abs=0.1)
    exact = curvature.lanczos(lambda v: matrix @ v, 6, seed=1, tolerance=0.0)
    assert exact.largest == pytest.approx(7, abs=1e-9) and exact.smallest == pytest.approx(-3, abs=1e-9)


def test_the_residual_bounds_the_error_and_a_seed_repeats_itself():
    values = torch.linspace(0, 1, 300, dtype=torch.float64) ** 3
    short = curvature.lanczos(lambda v: values * v, 300, seed=2, iterations=6)
    assert short.iterations == 6
    assert 1 - short.largest <= short.residual
    assert short == curvature.lanczos(lambda v: values * v, 300, seed=2, iterations=6)
    assert short != curvature.lanczos(lambda v: values * v, 300, seed=3, iterations=6)
    zero = curvature.lanczos(lambda v: 0 * v, 4, seed=0)
    assert (zero.largest, zero.smallest, zero.iterations) == (0, 0, 1)


def test_the_hessian_by_adapter_parameters_is_that_of_autograd():
    torch.manual_seed(0)
    module = tiny_llama()
    factors = {
        f"model.layers.{name}": Factors(0.3 * torch.randn(2, 32), torch.zeros(width, 2), scale=2.0)
        for name, width in (("0.self_attn.q_proj", 32), ("1.self_attn.v_proj", 16))
    }
    adapter = Adapter.install(module, factors, trained=("A", "B"))
    parameters = list(adapter.trained().values())
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(4))

    def loss() -> torch.Tensor:
        return F.cross_entropy(module(ids).logits[:, :-1].reshape(-1, 60), ids[:, 1:].reshape(-1))

    found = curvature.hessian_ends(loss, parameters, seed=0, iterations=200, tolerance=1e-5)

    # Central differences of the gradient, column by column, in float64.
    module.double()
    sizes = [parameter.numel() for parameter in parameters]
    start = torch.cat([p.detach().flatten() for p in parameters])

    def gradient(flat: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for p, piece in zip(parameters, flat.split(sizes), strict=True):
                p.copy_(piece.view_as(p))
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(), parameters)])

    step, columns = 1e-4, []
    for i in range(len(start)):
        moved = start.clone()
        moved[i] += step
        back = start.clone()
        back[i] -= step
        columns.append((gradient(moved) - gradient(back)) / (2 * step))
    expected = torch.linalg.eigvalsh((torch.stack(columns) + torch.stack(columns).T) / 2)
    assert found.largest == pytest.approx(float(expected[-1]), rel=1e-3)
    assert found.smallest == pytest.approx(float(expected[0]), rel=1e-2)
    assert found.iterations < 200  # it stopped because the residual was small
