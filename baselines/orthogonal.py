"""PEFT's orthogonal initialisation: A and B both non-zero, and B A = 0."""

import torch
from torch import Tensor

from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.system.errors import UserError

SIZE = 0.1  # of the entries, as in PEFT


@method_config
class Orthogonal(WeightMethod):
    """A = 0.1 Q_odd^T G and B = 0.1 H Q_even with Q a random orthogonal matrix and G, H Gaussian.

    Half of the rows of Q (r, r) serve A and half serve B. They are orthogonal to each other, so B A = 0.
    """

    def check(self, bundle: ModelBundle) -> None:
        """Refuse an odd rank; see `Method.check`."""
        super().check(bundle)
        if self.rank % 2:
            raise UserError(f"rank {self.rank} is odd: method=orthogonal shares its rank evenly between A and B.")

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """Factors whose product is zero; see `WeightMethod.layer_factors`."""
        out_width, in_width = weight.shape
        generator, half = layer_generator(seed, index), self.rank // 2
        Q = torch.linalg.qr(torch.randn(self.rank, self.rank, generator=generator)).Q
        A = Q[0::2].T @ torch.randn(half, in_width, generator=generator)  # (r, in)
        B = torch.randn(out_width, half, generator=generator) @ Q[1::2]  # (out, r)
        return Factors(SIZE * A, SIZE * B, scale=self.scale)
