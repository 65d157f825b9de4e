"""SORSA (Cao, arXiv:2409.00055): train the principal singular triplets, kept near orthonormal."""

from collections import defaultdict
from typing import Literal

import torch

from eva_bench.methods.base import Initialisation, Method, each_target, method_config
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd
from eva_bench.models.linear import weight_matrix

# Inside the square root of the penalty: at the orthonormal start the un-squared norm has no gradient, and
# rounding would give it a full-strength random one.
SMOOTHING = 1e-8


@method_config
class SORSA(Method):
    """W0 = W_r + scale * U_p diag(S_p) V_p^T with U_p, S_p and V_p trained and W_r frozen.

    `alpha=null` is scale 1, as in the paper; otherwise scale = alpha/rank and, as in the authors' code, S_p
    is not divided by it. The penalty is gamma / peak learning rate times
    ||U^T U - I||_F + ||V V^T - I||_F, averaged over layers (`penalty_reduction=mean`, the code) or summed
    (`sum`, the paper's formula).
    """

    rank: int
    alpha: float | None
    gamma: float
    penalty_reduction: Literal["mean", "sum"]
    svd: Literal["randomised", "exact"]
    trained = ("A", "s", "B")
    reduces_base = True

    def initialise(self, bundle, calibration, seed):
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        factors = {}
        for index, name, layer in each_target(bundle, self.rank, "singular values"):
            U, S, V = truncated_svd(weight_matrix(layer), self.rank, method=self.svd, seed=seed + index)
            factors[name] = Factors(A=V, B=U, s=S, scale=scale)
        return Initialisation(factors=factors)

    def penalty(self, adapter, peak_lr):
        if self.gamma == 0:
            return None
        by_shape = defaultdict(list)  # matrices of one shape are one batched product
        for layer in adapter.layers.values():
            for rows in (layer.A, layer.B.T):
                by_shape[rows.shape].append(rows)
        total = 0.0
        for (rank, _), group in by_shape.items():
            rows = torch.stack(group)  # (n, r, width)
            error = rows @ rows.mT - torch.eye(rank, device=rows.device)  # (n, r, r)
            total = total + (error.square().sum(dim=(1, 2)) + SMOOTHING).sqrt().sum()
        if self.penalty_reduction == "mean":
            total = total / (2 * len(adapter.layers))
        return self.gamma / peak_lr * total
