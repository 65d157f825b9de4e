"""SVFit (Sun et al., arXiv:2409.05926): train singular values only, in the fixed basis of the weight."""

from collections.abc import Iterable
from typing import Any, Literal

import torch

from eva_bench.methods.base import Initialisation, Method, each_target, method_config
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.models.sharding import whole


@method_config
class SVFit(Method):
    """W0 + U_r diag(d) V_r^T with d = sigma - sigma0 trained from zero; U_r and V_r fixed.

    The paper's rank could not be read. `rank=full` (every singular value) is what its claim "16 times
    fewer parameters than LoRA" implies for a square matrix against LoRA of rank 8.
    """

    rank: int | Literal["full"]
    svd: Literal["randomised", "exact"]
    trained = ("s",)
    fixed_rank = False

    @property
    def seeded(self) -> bool:
        """An exact decomposition draws nothing."""
        return self.svd != "exact"

    def layer_rank(self, shape: tuple[int, int]) -> int:
        """The rank, or the most that the layer allows; see `Method.layer_rank`."""
        return min(shape) if self.rank == "full" else self.rank

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """The singular vectors of each layer; see `Method.initialise`."""
        factors = {}
        limit = None if self.rank == "full" else self.rank
        for index, name, layer in each_target(bundle, limit, "singular values"):
            weight = whole(weight_matrix(layer))
            rank = limit or min(weight.shape)
            U, _, V = truncated_svd(weight, rank, method=self.svd, seed=seed + index)
            factors[name] = Factors(A=V, B=U, s=torch.zeros(rank), scale=1.0)
        return Initialisation(factors=factors)
