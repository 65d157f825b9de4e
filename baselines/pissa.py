"""PiSSA (Meng et al., arXiv:2404.02948): adapt the principal part of the weight, freeze the rest."""

from typing import Literal

from torch import Tensor

from eva_bench.methods.base import WeightMethod, method_config
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd


@method_config
class PiSSA(WeightMethod):
    """B = U_r S_r^{1/2}, A = S_r^{1/2} V_r^T, base = W0 - scale * B A (equations 2-5).

    The paper always has scale = alpha/rank = 1. For another scale S_r is divided by it, so that the initial
    product is the same truncation of W0 (PEFT's extension).
    """

    svd: Literal["randomised", "exact"]
    reduces_base = True
    title = "singular values"

    @property
    def seeded(self) -> bool:
        """An exact decomposition draws nothing."""
        return self.svd != "exact"

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """The largest singular triplets; see `WeightMethod.layer_factors`."""
        U, S, V = truncated_svd(weight, self.rank, method=self.svd, seed=seed + index)
        root = (S / self.scale).sqrt()  # (r,)
        return Factors(A=root[:, None] * V, B=U * root, scale=self.scale)
