"""NoRA (arXiv:2410.18965): A is a random sketch of the weight; NoRA+ preconditions the gradients, too."""

import torch
from torch import Tensor

from eva_bench.methods.base import LowRankMethod, layer_generator, method_config
from eva_bench.methods.layer import Factors


@method_config
class NoRA(LowRankMethod):
    """A = (sigma / scale) Omega W0 with Omega (r, out) standard normal, B = 0: A lies in the row space of W0."""

    sigma: float

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """A Nyström sketch of the weight; see `LowRankMethod.layer_factors`."""
        sketch = torch.randn(self.rank, len(weight), generator=layer_generator(seed, index))
        A = self.sigma / self.scale * (sketch.to(weight.device) @ weight.float())  # (r, in)
        return Factors(A, torch.zeros(len(weight), self.rank), scale=self.scale)
