"""LoRA with rows of norm 1 in A: as large as EVA's rows, random and not orthogonal."""

import torch
from torch import Tensor

from baselines.lora import kaiming
from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Factors


@method_config
class LoRAUnitRows(WeightMethod):
    """The random A of LoRA with every row divided by its norm, B = 0.

    EVA's rows have norm 1, those of LoRA about 1/sqrt(3).
    """

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """Random rows of norm 1; see `WeightMethod.layer_factors`."""
        A = kaiming(self.rank, weight.shape[1], layer_generator(seed, index))
        A = A / A.norm(dim=1, keepdim=True)
        return Factors(A, torch.zeros(len(weight), self.rank), scale=self.scale)
