"""OLoRA (Büyükakyüz, arXiv:2406.01775): initialised from the QR decomposition of the weight."""

import torch
from torch import Tensor

from eva_bench.methods.base import WeightMethod, method_config
from eva_bench.methods.layer import Factors


@method_config
class OLoRA(WeightMethod):
    """W0 = Q R, B = Q[:, :r] (orthonormal columns), A = R[:r] (upper trapezoidal), base = W0 - scale * B A.

    Neither a square root nor a division by the scale: with alpha != rank only that fraction of Q_r R_r is
    taken out of the base and put back by the adapter, so the function is unchanged for every scale.
    """

    reduces_base = True
    title = "QR decompositions"

    @property
    def seeded(self) -> bool:
        """A QR decomposition draws nothing."""
        return False

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """The leading part of Q R; see `WeightMethod.layer_factors`."""
        Q, R = torch.linalg.qr(weight.float())  # (out, k), (k, in)
        return Factors(A=R[: self.rank], B=Q[:, : self.rank], scale=self.scale)
