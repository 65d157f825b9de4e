"""LoRA the other way round: B random, A zero (Init[B] of arXiv:2406.08447)."""

import math
from collections.abc import Iterable

import torch

from eva_bench.methods.base import Initialisation, Method, layer_generator, method_config, target_layers
from eva_bench.methods.layer import Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix


@method_config
class InitB(Method):
    """A = 0, B random with entries N(0, 1/rank)."""

    rank: int
    alpha: float

    def initialise(self, bundle: ModelBundle, calibration: Iterable, seed: int) -> Initialisation:
        """B random, A = 0."""
        factors = {}
        for index, (name, layer) in enumerate(target_layers(bundle, self.rank).items()):
            out_width, in_width = weight_matrix(layer).shape
            B = torch.randn(out_width, self.rank, generator=layer_generator(seed, index)) / math.sqrt(self.rank)
            factors[name] = Factors(torch.zeros(self.rank, in_width), B, scale=self.alpha / self.rank)
        return Initialisation(factors=factors)
