"""The truncated SVD against the full one and against what PEFT's pissa_niter_16 computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_bench.methods.svd import truncated_svd


def make_matrix(rows: int, columns: int, decay: float, seed: int = 0) -> torch.Tensor:
    """Singular values i^-decay."""
    generator = torch.Generator().manual_seed(seed)
    side = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, side, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(columns, side, generator=generator)).Q
    return left * torch.arange(1, side + 1).pow(-decay) @ right.T


def residual(matrix, u, s, v) -> float:
    return float(torch.linalg.matrix_norm(matrix - u * s @ v) / torch.linalg.matrix_norm(matrix))


@pytest.mark.parametrize("shape", [(300, 300), (200, 500), (500, 200)])
@pytest.mark.parametrize("decay", [0.1, 0.3, 0.7, 1.5])
@pytest.mark.parametrize("rank", [8, 16, 64])
def test_residual_is_no_larger_than_that_of_pissa_niter_16(shape, decay, rank):
    matrix = make_matrix(*shape, decay)
    ours = residual(matrix, *truncated_svd(matrix, rank))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(matrix, q=rank, niter=16)
    best = residual(matrix, *truncated_svd(matrix, rank, method="exact"))
    assert ours <= residual(matrix, u, s, v.T) + 1e-6
    assert ours <= best + 3e-4


@given(
    rows=st.integers(2, 90),
    columns=st.integers(2, 90),
    rank=st.integers(1, 90),
    method=st.sampled_from(["randomised", "exact"]),
)
@settings(max_examples=60, deadline=None)
def test_factors_are_orthonormal_and_descending(rows, columns, rank, method):
    rank = min(rank, rows, columns)
    u, s, v = truncated_svd(make_matrix(rows, columns, 0.5), rank, method=method)
    assert (u.shape, s.shape, v.shape) == ((rows, rank), (rank,), (rank, columns))
    assert torch.allclose(u.T @ u, torch.eye(rank), atol=1e-4)
    assert torch.allclose(v @ v.T, torch.eye(rank), atol=1e-4)
    assert (s.diff() <= 1e-6).all() and (s >= 0).all()


def test_separated_singular_vectors_are_those_of_the_exact_decomposition():
    matrix = make_matrix(400, 300, 1.5)
    randomised, exact = (truncated_svd(matrix, 8, method=method) for method in ("randomised", "exact"))
    for ours, reference in zip(randomised, exact, strict=True):
        assert torch.allclose(ours, reference, atol=1e-4)


def test_same_seed_same_bytes_and_global_randomness_untouched():
    matrix, state = make_matrix(300, 300, 0.3), torch.get_rng_state()
    first, second = truncated_svd(matrix, 8, seed=3), truncated_svd(matrix, 8, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_low_precision_weights_are_decomposed_in_float32():
    matrix = make_matrix(200, 150, 0.5).to(torch.bfloat16)
    u, s, _ = truncated_svd(matrix, 8)
    assert u.dtype == torch.float32
    assert torch.allclose(s, torch.linalg.svdvals(matrix.float())[:8], rtol=1e-3)


@pytest.mark.parametrize(
    ("weight", "rank", "method", "message"),
    [
        (torch.zeros(4, 3), 4, "exact", "rank 4 is outside 1..3"),
        (torch.zeros(4, 3), 0, "exact", "outside"),
        (torch.zeros(4, 3, dtype=torch.int8), 1, "exact", "floating"),
        (torch.zeros(4), 1, "exact", "2-dimensional"),
        (torch.full((4, 3), torch.nan), 1, "exact", "NaN"),
        (torch.zeros(4, 3), 1, "fast", "'fast'"),
    ],
)
def test_bad_input_is_refused(weight, rank, method, message):
    with pytest.raises(ValueError, match=message):
        truncated_svd(weight, rank, method=method)
