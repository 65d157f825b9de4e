"""How low the rank of weights and of gradients is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from eva_bench.probes.geometry import stable_rank_of

# WeLore (arXiv:2407.11239): thresholds on normalised singular values, by the share of the model that is to go.
WELORE = {0.1: 0.065, 0.2: 0.084, 0.3: 0.115, 0.4: 0.145, 0.5: 0.175, 0.6: 0.215, 0.7: 0.26}
ENERGY = 0.9


def profile(matrix: Tensor, threshold: float = WELORE[0.5]) -> dict[str, float]:
    """Rank measures of one matrix.

    Args:
        threshold: of singular values divided by the largest; those above count.

    Returns:
        welore: how many singular values count; share: that over min(out, in); stable_rank; energy_rank: how many
        leading components hold 90 % of the squared Frobenius norm.
    """
    S = torch.linalg.svdvals(matrix)
    counted = int((threshold * S[0] < S).sum())
    return {
        "welore": counted,
        "share": counted / len(S),
        "stable_rank": stable_rank_of(S),
        "energy_rank": energy_rank(S),
    }


def energy_rank(singular_values: Tensor, energy: float = ENERGY) -> int:
    """The least number of leading components with so much of the squared norm; 0 for a zero matrix."""
    squares = singular_values.double().square().cumsum(0)
    return int((squares < energy * squares[-1]).sum()) + 1 if squares[-1] > 0 else 0


def low_rank_layers(ranks: Mapping[str, float], limit: float = 0.5) -> tuple[str, ...]:
    """The layers WeLore replaces and trains: those that keep at most about half of their rank.

    Args:
        ranks: `share` of `profile` per layer.
    """
    return tuple(name for name, share in ranks.items() if share <= limit)


def gradients(module: nn.Module, names: tuple[str, ...], loss: Callable[[], Tensor]) -> dict[str, dict[str, float]]:
    """Rank measures of the gradient of the loss by whole weight matrices (GaLore, arXiv:2403.03507).

    Args:
        names: layers of the model, which must be differentiable.
        loss: computes the loss on fixed data with the model as it is.
    """
    weights = [module.get_submodule(name).weight for name in names]
    trained = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        found = torch.autograd.grad(loss(), weights)
    finally:
        for weight, was in zip(weights, trained, strict=True):
            weight.requires_grad_(was)
    measures = {}
    for name, gradient in zip(names, found, strict=True):
        S = torch.linalg.svdvals(gradient.float())
        measures[name] = {"stable_rank": stable_rank_of(S), "energy_rank": energy_rank(S), "norm": float(S.norm())}
    return measures
