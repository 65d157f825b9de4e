"""How far the factors of an adapter are from orthonormal, as a term of the loss."""

from collections import defaultdict

import torch
from torch import Tensor

from eva_bench.methods.layer import Adapter

# Inside the square root: at orthonormal factors the norm has no gradient, and rounding would give it a random one of
# full strength.
SMOOTHING = 1e-8


def orthogonality_penalty(adapter: Adapter) -> Tensor:
    """Sum over all layers of ||B^T B - I||_F + ||A A^T - I||_F, the norms not squared.

    Args:
        adapter: with at least one layer.

    Returns:
        A scalar with gradients; divided by twice the number of layers it is the mean over all matrices.

    Source: the regularisers of AdaLoRA (arXiv:2303.10512) and SORSA (arXiv:2409.00055), as their code has them.
    """
    by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)  # matrices of one shape are one batched product
    for layer in adapter.layers.values():
        for rows in (layer.A, layer.B.T):
            by_shape[rows.shape].append(rows)
    total = torch.zeros((), device=next(iter(adapter.layers.values())).A.device)
    for (rank, _), group in by_shape.items():
        rows = torch.stack(group)  # (n, r, width)
        error = rows @ rows.mT - torch.eye(rank, device=rows.device)  # (n, r, r)
        total = total + (error.square().sum(dim=(1, 2)) + SMOOTHING).sqrt().sum()
    return total
