"""SORSA (Cao, arXiv:2409.00055): train the principal singular triplets, kept near orthonormal."""

from typing import Literal

from torch import Tensor

from eva_bench.methods.base import WeightMethod, method_config
from eva_bench.methods.layer import Adapter, Factors
from eva_bench.methods.orthogonality import orthogonality_penalty
from eva_bench.methods.svd import truncated_svd


@method_config
class SORSA(WeightMethod):
    """W0 = W_r + scale * U_p diag(S_p) V_p^T with U_p, S_p and V_p trained and W_r frozen.

    `alpha=null` is scale 1, as in the paper; otherwise scale = alpha/rank and, as in the authors' code, S_p
    is not divided by it. The penalty is gamma / peak learning rate times
    ||U^T U - I||_F + ||V V^T - I||_F, averaged over all matrices (`penalty_reduction=mean`, the code) or summed
    (`sum`, the paper's formula).
    """

    gamma: float
    penalty_reduction: Literal["mean", "sum"]
    svd: Literal["randomised", "exact"]
    trained = ("A", "s", "B")
    reduces_base = True
    title = "singular values"

    @property
    def seeded(self) -> bool:
        """An exact decomposition draws nothing."""
        return self.svd != "exact"

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """The largest singular triplets; see `WeightMethod.layer_factors`."""
        U, S, V = truncated_svd(weight, self.rank, method=self.svd, seed=seed + index)
        return Factors(A=V, B=U, s=S, scale=self.scale)

    def penalty(self, adapter: Adapter, peak_lr: float) -> Tensor | None:
        """Distance from orthonormality; see `Method.penalty`."""
        if self.gamma == 0:
            return None
        total = orthogonality_penalty(adapter)
        if self.penalty_reduction == "mean":
            total = total / (2 * len(adapter.layers))
        return self.gamma / peak_lr * total
