"""PiSSA (Meng et al., arXiv:2404.02948): adapt the principal part of the weight, freeze the rest."""

from typing import Literal

from eva_bench.methods.base import Initialisation, Method, each_target, method_config
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd
from eva_bench.models.linear import weight_matrix


@method_config
class PiSSA(Method):
    """B = U_r S_r^{1/2}, A = S_r^{1/2} V_r^T, base = W0 - scale * B A (equations 2-5).

    The paper always has scale = alpha/rank = 1. For another scale S_r is divided by it, so that the start
    is the same truncation of W0 (PEFT's extension).
    """

    rank: int
    alpha: float
    svd: Literal["randomised", "exact"]
    reduces_base = True

    def initialise(self, bundle, calibration, seed):
        scale = self.alpha / self.rank
        factors = {}
        for index, name, layer in each_target(bundle, self.rank, "singular values"):
            U, S, V = truncated_svd(weight_matrix(layer), self.rank, method=self.svd, seed=seed + index)
            root = (S / scale).sqrt()  # (r,)
            factors[name] = Factors(A=root[:, None] * V, B=U * root, scale=scale)
        return Initialisation(factors=factors)
