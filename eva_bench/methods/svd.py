"""Truncated singular value decompositions of weight matrices."""

import torch
from torch import Tensor

OVERSAMPLE = 16  # extra columns per block; more buys little once the blocks are kept
ITERATIONS = 3  # blocks after the first; within 2e-4 of the best residual even on nearly flat spectra

Triplets = tuple[Tensor, Tensor, Tensor]


@torch.no_grad()
def truncated_svd(
    weight: Tensor,
    rank: int,
    *,
    method: str = "randomised",
    seed: int = 0,
    oversample: int = OVERSAMPLE,
    iterations: int = ITERATIONS,
) -> Triplets:
    """Return the `rank` largest singular triplets of a matrix, `weight ≈ U · diag(S) · V`.

    Same seed and device, same result; the global random state is not touched. A GPU that runs out of memory hands the
    matrix to the CPU.

    Args:
        weight: (out, in), any floating dtype.
        rank: how many triplets.
        method: `exact` is a full SVD. `randomised` is a block Krylov iteration; where that would span half of a matrix,
            the eigenvectors of its Gram matrix cost no more and leave nothing out.
        seed: of the first block.
        oversample: columns of a block beyond the rank.
        iterations: blocks after the first.

    Returns:
        U (out, rank), S (rank,) descending and V (rank, in), float32 (float64 for a float64 weight) on the weight's
        device; U and V orthonormal, the largest entry of each row of V positive.

    Raises:
        ValueError: not 2-dimensional, floating and finite, or a rank outside 1..min(out, in).

    Source: Musco & Musco 2015, "Randomized block Krylov methods for stronger and faster approximate SVD".
    """
    _check(weight, rank, method)
    try:
        u, s, v = _decompose(weight, rank, method, seed, oversample, iterations)
    except torch.OutOfMemoryError:
        u, s, v = _decompose(weight.cpu(), rank, method, seed, oversample, iterations)
    return u.to(weight.device), s.to(weight.device), v.to(weight.device)


def normalised_spectrum(singular_values: Tensor) -> Tensor:
    """Singular values with the smallest brought to 0 and the largest to 1; all 1 where they are equal.

    Source: the code of WeLore (arXiv:2407.11239), whose thresholds are about these.
    """
    least, most = singular_values.min(), singular_values.max()
    if least == most:
        return torch.ones_like(singular_values)
    return (singular_values - least) / (most - least)


def _check(weight: Tensor, rank: int, method: str) -> None:
    if method not in ("randomised", "exact"):
        raise ValueError(f"unknown SVD method {method!r}: choose 'randomised' or 'exact'")
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"need a 2-dimensional floating-point weight, got {tuple(weight.shape)} {weight.dtype}")
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"rank {rank} is outside 1..{min(weight.shape)} for a weight of shape {tuple(weight.shape)}")
    # A sum is finite only if its terms are, and takes a tenth of the time; it may overflow where they are not too
    # large.
    total = weight.sum(dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32)
    if not torch.isfinite(total) and not torch.isfinite(weight).all():
        raise ValueError("the weight holds NaN or infinite values")


def _decompose(weight: Tensor, rank: int, method: str, seed: int, oversample: int, iterations: int) -> Triplets:
    matrix = weight if weight.dtype == torch.float64 else weight.float()
    width = rank + oversample
    blocks = iterations + 1
    factors: Triplets | None = None
    if method == "randomised" and 2 * blocks * width < min(matrix.shape):
        factors = _block_krylov(matrix, rank, width, blocks, seed)
    elif method == "randomised":  # the blocks would span half of everything: all of it costs no more
        factors = _by_gram_matrix(matrix, rank)
    if factors is None:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        factors = u[:, :rank], s[:rank], v[:rank]
    u, s, v = factors
    signs = v.gather(1, v.abs().argmax(1, keepdim=True)).sign()  # (rank, 1)
    return (u * signs.T).contiguous(), s.contiguous(), (v * signs).contiguous()


def _block_krylov(matrix: Tensor, rank: int, width: int, blocks: int, seed: int) -> Triplets:
    """Keep every block of the power iteration and take the best `rank` directions of their joint span.

    Each block is made orthogonal to those before it, so that what it projects to is needed once only.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device starts from the same numbers
    start = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis = torch.linalg.qr(matrix @ start).Q  # (out, width)
    projected = [matrix.T @ basis]  # (in, width) each
    for _ in range(blocks - 1):
        block = matrix @ projected[-1]
        for _ in range(2):  # twice: what is left of a block may be mostly rounding
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis = torch.cat([basis, block], dim=1)  # (out, blocks so far · width)
        projected.append(matrix.T @ block)
    product = torch.cat(projected, dim=1).double()  # (in, blocks · width)
    _, vectors = torch.linalg.eigh(product.T @ product)  # ascending
    u = basis @ vectors[:, -rank:].to(basis.dtype)  # (out, rank)
    return _from_left_vectors(matrix, u)


def _by_gram_matrix(matrix: Tensor, rank: int) -> Triplets | None:
    """Eigenvectors of the smaller Gram matrix; None where a wanted singular value is lost in its squares."""
    small = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    _, vectors = torch.linalg.eigh(small @ small.T)  # ascending
    u, s, v = _from_left_vectors(small, vectors[:, -rank:])
    if s[-1] <= 16 * torch.finfo(matrix.dtype).eps ** 0.5 * s[0]:
        return None
    return (u, s, v) if small is matrix else (v.T, s, u.T)


def _from_left_vectors(matrix: Tensor, u: Tensor) -> Triplets:
    """Triplets of a matrix within the span of u, (out, rank) orthonormal.

    u comes from a Gram matrix, which squares the condition number; one QR of the small factor gives full accuracy back.
    """
    v, triangle = torch.linalg.qr(matrix.T @ u)  # (in, rank), (rank, rank)
    left, s, right = torch.linalg.svd(triangle.T)
    return u @ left, s, right @ v.T
