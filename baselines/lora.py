"""LoRA (Hu et al., arXiv:2106.09685): A random, B zero."""

import math
from typing import Literal

import torch

from eva_bench.methods.base import Initialisation, Method, layer_generator, method_config, target_layers
from eva_bench.methods.layer import Factors
from eva_bench.models.linear import weight_matrix


@method_config
class LoRA(Method):
    """W0 + alpha/rank * B A, B = 0.

    `init=kaiming` is U(-1/sqrt(in), 1/sqrt(in)) as in loralib and PEFT; `init=gaussian` is N(0, 1/rank^2),
    PEFT's reading of the paper's text.
    """

    rank: int
    alpha: float
    init: Literal["kaiming", "gaussian"]

    def initialise(self, bundle, calibration, seed):
        factors = {}
        for index, (name, layer) in enumerate(target_layers(bundle, self.rank).items()):
            out_width, in_width = weight_matrix(layer).shape
            A = torch.empty(self.rank, in_width)
            generator = layer_generator(seed, index)
            if self.init == "kaiming":
                A.uniform_(-1 / math.sqrt(in_width), 1 / math.sqrt(in_width), generator=generator)
            else:
                A.normal_(0, 1 / self.rank, generator=generator)
            factors[name] = Factors(A, torch.zeros(out_width, self.rank), scale=self.alpha / self.rank)
        return Initialisation(factors=factors)
