"""Initial rows of A, (r, in), made from a layer's subspace or, as controls, from nothing but random numbers.

Each is a pure function: nothing is changed in place, so layers that share a subspace cannot disturb one another.
"""

import math

import torch
from torch import Tensor

from eva_bench.eva.subspace import LayerSubspace

SMALLEST_SHARE = 1e-6  # of the total variance; bounds what whitening divides by


def leading(subspace: LayerSubspace, rank: int) -> Tensor:
    """EVA: the components of largest variance. Source: EVA section 3.3."""
    return subspace.components[:rank].clone()


def whitened(subspace: LayerSubspace, rank: int) -> Tensor:
    """Leading components, each divided by the square root of its share of the total variance.

    All entries of A x then vary equally, whatever the scale of the inputs. Of the three published definitions this is
    the one of the code behind table 25 (VTAB-1K); the paper's text divides by eigenvalues, the official language code
    by the square root of singular values. Source: EVA appendix I.
    """
    if subspace.total_variance <= 0:
        return leading(subspace, rank)
    share = (subspace.eigenvalues[:rank] / subspace.total_variance).clamp_min(SMALLEST_SHARE)
    return subspace.components[:rank] / share.sqrt()[:, None]


def rotated(subspace: LayerSubspace, rank: int, generator: torch.Generator) -> Tensor:
    """Leading components in a random orthonormal basis of the same space. Source: EVA appendix I (EVA-rot)."""
    rotation = orthonormal(rank, rank, generator)
    return rotation.to(subspace.components.device) @ subspace.components[:rank]


def permuted(subspace: LayerSubspace, rank: int, generator: torch.Generator) -> Tensor:
    """Leading components with the entries of every column shuffled over the rows on its own.

    Keeps the scale of each input feature and destroys the directions. Source: EVA appendix I (EVA-perm).
    """
    rows = subspace.components[:rank]
    order = torch.rand(rows.shape, generator=generator).argsort(0)  # (r, in)
    return rows.gather(0, order.to(rows.device))


def minor(subspace: LayerSubspace, rank: int) -> Tensor:
    """The lowest-variance components; needs all of them. Source: EVA appendix B.3 (EVA-minor)."""
    return subspace.components[-rank:].clone()


def orthonormal(rank: int, width: int, generator: torch.Generator) -> Tensor:
    """Random orthonormal rows, uniformly distributed: EVA's scale without its directions."""
    q, r = torch.linalg.qr(torch.randn(width, rank, generator=generator))
    rows: Tensor = (q * r.diagonal().sign()).T.contiguous()
    return rows


def kaiming(rank: int, width: int, generator: torch.Generator) -> Tensor:
    """LoRA's usual initialisation, U(-1/sqrt(in), 1/sqrt(in))."""
    bound = 1 / math.sqrt(width)
    return torch.empty(rank, width).uniform_(-bound, bound, generator=generator)
