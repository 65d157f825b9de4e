"""LoRA-One (Zhang et al., arXiv:2502.01235): training starts after a low-rank gradient step."""

from torch import Tensor

from eva_bench.methods.base import method_config
from eva_bench.methods.gradients import GradientMethod
from eva_bench.methods.layer import Factors


@method_config
class LoRAOne(GradientMethod):
    """A = (S/gamma)^{1/2} V, B = U (S/gamma)^{1/2} of the negative gradient U S V, S divided by its largest value.

    The base is not changed: training starts from W0 + scale * B A.
    """

    changes_function = True

    def gradient_factors(self, U: Tensor, S: Tensor, V: Tensor) -> Factors:
        """The normalised principal part of the negative gradient; see `GradientMethod.gradient_factors`."""
        root = (S / S[0] / self.stable_gamma).sqrt()  # (r,)
        return Factors(root[:, None] * V, -U * root, scale=self.scale)
