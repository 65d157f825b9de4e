"""OLoRA (Büyükakyüz, arXiv:2406.01775): start from the QR decomposition of the weight."""

import torch

from eva_bench.methods.base import Initialisation, Method, each_target, method_config
from eva_bench.methods.layer import Factors
from eva_bench.models.linear import weight_matrix


@method_config
class OLoRA(Method):
    """W0 = Q R, B = Q[:, :r] (orthonormal columns), A = R[:r] (upper trapezoidal), base = W0 - scale * B A.

    Neither a square root nor a division by the scale: with alpha != rank only that fraction of Q_r R_r is
    taken out of the base and put back by the adapter, so the function is unchanged for every scale.
    """

    rank: int
    alpha: float
    reduces_base = True

    def initialise(self, bundle, calibration, seed):
        factors = {}
        for _, name, layer in each_target(bundle, self.rank, "QR decompositions"):
            Q, R = torch.linalg.qr(weight_matrix(layer).detach().float())  # (out, k), (k, in)
            factors[name] = Factors(A=R[: self.rank], B=Q[:, : self.rank], scale=self.alpha / self.rank)
        return Initialisation(factors=factors)
