"""LoRA-GA (Wang et al., arXiv:2407.05000): the first step of LoRA follows that of full fine-tuning."""

from torch import Tensor

from eva_bench.methods.base import method_config
from eva_bench.methods.gradients import GradientMethod
from eva_bench.methods.layer import Factors


@method_config
class LoRAGA(GradientMethod):
    """A = c V[:r], B = c U[:, r:2r] of the gradient's U S V, c = out^{1/4} / sqrt(gamma); base = W0 - scale * B A.

    The singular values enter neither factor (Algorithm 1 of the paper).
    """

    reduces_base = True
    triplets_per_rank = 2

    def gradient_factors(self, U: Tensor, S: Tensor, V: Tensor) -> Factors:
        """Both factors from singular vectors alone; see `GradientMethod.gradient_factors`."""
        size = len(U) ** 0.25 / self.stable_gamma**0.5
        return Factors(size * V[: self.rank], size * U[:, self.rank :], scale=self.scale)


@method_config
class LoRAGAPeft(LoRAGA):
    """PEFT's formula: A = V[:r] as it is, and B = c U[:, r:2r] diag(S[r:2r])."""

    def gradient_factors(self, U: Tensor, S: Tensor, V: Tensor) -> Factors:
        """B with the singular values; see `GradientMethod.gradient_factors`."""
        size = len(U) ** 0.25 / self.stable_gamma**0.5
        return Factors(V[: self.rank], size * U[:, self.rank :] * S[self.rank :], scale=self.scale)
