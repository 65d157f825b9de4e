"""LoRA the other way round: B random, A zero (Init[B] of arXiv:2406.08447)."""

import math

import torch
from torch import Tensor

from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Factors


@method_config
class InitB(WeightMethod):
    """A = 0, B random with entries N(0, 1/rank)."""

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """B random, A zero; see `WeightMethod.layer_factors`."""
        out_width, in_width = weight.shape
        B = torch.randn(out_width, self.rank, generator=layer_generator(seed, index)) / math.sqrt(self.rank)
        return Factors(torch.zeros(self.rank, in_width), B, scale=self.scale)
