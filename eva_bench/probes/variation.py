"""How far singular values and singular vectors moved.

`values` and `vectors` are SORSA's (arXiv:2409.00055, analysis/data.ipynb of the official repository): components are
matched by index. Where two singular values are close, a small update swaps their vectors and index matching reads a
large change, so `matched` (components matched to each other's best) and `subspace` (principal angles) stand beside it.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from eva_bench.probes.result import Findings, mean_of
from eva_bench.probes.subjects import Subject
from eva_bench.probes.trained import Layer
from eva_bench.system.arguments import Arguments

LEADING = 8  # components whose joint span is compared, or as many as the adapter's rank


def variation(layer: Layer, leading: int = LEADING) -> dict[str, float]:
    """Change of the singular value decomposition of one layer.

    Returns:
        values: mean |s_i - s0_i|.
        vectors: 1 - mean (|<u_i, u0_i>| + |<v_i, v0_i>|) / 2 over all components, from 0 to 1.
        matched: the same with the assignment of components that makes it smallest.
        subspace: mean sin^2 of the principal angles between the leading left spans, averaged with that of the right.
    """
    U0, S0, V0 = torch.linalg.svd(layer.base, full_matrices=False)
    U, S, V = torch.linalg.svd(layer.tuned, full_matrices=False)
    cosines = ((U.T @ U0).abs() + (V @ V0.T).abs()) / 2  # (m, m): tuned, base
    rows, columns = linear_sum_assignment(cosines.cpu().numpy(), maximize=True)
    leading = min(leading, len(S))
    return {
        "values": float((S - S0).abs().mean()),
        "vectors": 1 - float(cosines.diagonal().mean()),
        "matched": 1 - float(cosines[rows, columns].mean()),
        "subspace": (_turn(U0[:, :leading], U[:, :leading]) + _turn(V0[:leading].T, V[:leading].T)) / 2,
    }


class Options(Arguments):
    """Settings of the probe.

    Attributes:
        leading: components whose joint span is compared.
    """

    leading: int = LEADING


def probe(subject: Subject, options: Options) -> Findings:
    """Variation per layer, and its mean."""
    layers = {name: variation(layer, options.leading) for name, layer in subject.layers()}
    return Findings(summary=mean_of(layers, "values", "vectors", "matched", "subspace"), layers=layers)


def _turn(first: Tensor, second: Tensor) -> float:
    """Mean sin^2 of the principal angles between two spans of orthonormal columns (n, k)."""
    return 1 - float((first.T @ second).square().sum() / first.shape[1])
