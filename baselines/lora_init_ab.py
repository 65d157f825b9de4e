"""Init[AB] (Li et al., arXiv:2505.23194): A and B both random."""

import math

import torch
from torch import Tensor

from baselines.lora import kaiming
from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Factors


@method_config
class InitAB(WeightMethod):
    """A as in LoRA; B uniform with the bound of A times `size_B`. Training starts from W0 + scale * B A."""

    size_B: float
    changes_function = True

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """Two random factors; see `WeightMethod.layer_factors`."""
        out_width, in_width = weight.shape
        generator = layer_generator(seed, index)
        A = kaiming(self.rank, in_width, generator)
        bound = self.size_B / math.sqrt(in_width)
        B = torch.empty(out_width, self.rank).uniform_(-bound, bound, generator=generator)
        return Factors(A, B, scale=self.scale)


@method_config
class InitABSubtracted(InitAB):
    """The same factors with their product subtracted from the base, so that training starts from W0."""

    changes_function = False
    reduces_base = True
