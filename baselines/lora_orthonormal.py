"""LoRA with random orthonormal rows in A: EVA's scale without its directions."""

from collections.abc import Iterable

import torch

from eva_bench.eva import directions
from eva_bench.methods.base import Initialisation, Method, layer_generator, method_config, target_layers
from eva_bench.methods.layer import Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix


@method_config
class OrthonormalLoRA(Method):
    """LoRA with random orthonormal rows in A: as large as EVA's, in no particular direction."""

    rank: int
    alpha: float

    def initialise(self, bundle: ModelBundle, calibration: Iterable, seed: int) -> Initialisation:
        """A with random orthonormal rows, B = 0."""
        factors = {}
        for index, (name, layer) in enumerate(target_layers(bundle, self.rank).items()):
            out_width, in_width = weight_matrix(layer).shape
            A = directions.orthonormal(self.rank, in_width, layer_generator(seed, index))
            factors[name] = Factors(A, torch.zeros(out_width, self.rank), scale=self.alpha / self.rank)
        return Initialisation(factors=factors)
