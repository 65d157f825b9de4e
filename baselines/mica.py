"""MiCA (arXiv:2604.01694): the smallest left singular vectors as a frozen B; only A is trained."""

import torch
from torch import Tensor

from eva_bench.methods.base import WeightMethod, method_config
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd


@method_config
class MiCA(WeightMethod):
    """B = the left singular vectors of the `rank` smallest singular values, frozen; A = 0, trained."""

    trained = ("A",)
    title = "singular values"

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """The smallest left singular vectors; see `WeightMethod.layer_factors`."""
        U, _, _ = truncated_svd(weight, min(weight.shape), method="exact")  # descending
        return Factors(A=torch.zeros(self.rank, weight.shape[1]), B=U[:, -self.rank :], scale=self.scale)
