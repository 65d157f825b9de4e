"""LoRA with random orthonormal rows in A: EVA's scale without its directions."""

import torch
from torch import Tensor

from eva_bench.eva import directions
from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Factors


@method_config
class OrthonormalLoRA(WeightMethod):
    """LoRA with random orthonormal rows in A: as large as EVA's, in no particular direction."""

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """A random with orthonormal rows, B zero; see `WeightMethod.layer_factors`."""
        A = directions.orthonormal(self.rank, weight.shape[1], layer_generator(seed, index))
        return Factors(A, torch.zeros(len(weight), self.rank), scale=self.scale)
