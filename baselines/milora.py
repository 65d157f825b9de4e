"""MiLoRA (Wang et al., arXiv:2406.09044): adapt the minor part of the weight, freeze the rest."""

from torch import Tensor

from eva_bench.methods.base import WeightMethod, method_config
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd


@method_config
class MiLoRA(WeightMethod):
    """B = U_m S_m^{1/2}, A = S_m^{1/2} V_m^T with the `rank` smallest singular values; base = W0 - scale * B A.

    S_m is divided by the scale, so that the part taken out of W0 does not depend on it.
    """

    reduces_base = True
    title = "singular values"

    @property
    def seeded(self) -> bool:
        """An exact decomposition draws nothing."""
        return False

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """The smallest singular triplets; see `WeightMethod.layer_factors`."""
        U, S, V = truncated_svd(weight, min(weight.shape), method="exact")  # descending
        root = (S[-self.rank :] / self.scale).sqrt()  # (r,)
        return Factors(A=root[:, None] * V[-self.rank :], B=U[:, -self.rank :] * root, scale=self.scale)
