"""LoRA (Hu et al., arXiv:2106.09685): A random, B zero."""

import math
from typing import Literal

import torch
from torch import Tensor

from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Factors


def kaiming(rank: int, width: int, generator: torch.Generator) -> Tensor:
    """A as loralib and PEFT draw it, (rank, width): uniform between -1/sqrt(width) and 1/sqrt(width)."""
    bound = 1 / math.sqrt(width)
    return torch.empty(rank, width).uniform_(-bound, bound, generator=generator)


@method_config
class LoRA(WeightMethod):
    """W0 + scale * B A, B = 0.

    `init=kaiming` is U(-1/sqrt(in), 1/sqrt(in)) as in loralib and PEFT; `init=gaussian` is N(0, 1/rank^2),
    PEFT's reading of the paper's text.
    """

    init: Literal["kaiming", "gaussian"]

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """A random, B zero; see `WeightMethod.layer_factors`."""
        out_width, in_width = weight.shape
        generator = layer_generator(seed, index)
        if self.init == "kaiming":
            A = kaiming(self.rank, in_width, generator)
        else:
            A = torch.empty(self.rank, in_width).normal_(0, 1 / self.rank, generator=generator)
        return Factors(A, torch.zeros(out_width, self.rank), scale=self.scale)
