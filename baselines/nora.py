"""NoRA (arXiv:2410.18965): A is a random sketch of the weight; NoRA+ preconditions the gradients, too."""

from typing import Any

import torch
from torch import Tensor

from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Adapter, Factors

DAMPING = 1e-6  # of the Gram matrices, authors' code


@method_config
class NoRA(WeightMethod):
    """A = (sigma / scale) Omega W0 with Omega (r, out) standard normal, B = 0: A lies in the row space of W0."""

    sigma: float

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """A Nyström sketch of the weight; see `WeightMethod.layer_factors`."""
        sketch = torch.randn(self.rank, len(weight), generator=layer_generator(seed, index))
        A = self.sigma / self.scale * (sketch.to(weight.device) @ weight.float())  # (r, in)
        return Factors(A, torch.zeros(len(weight), self.rank), scale=self.scale)


@method_config
class NoRAPlus(NoRA):
    """NoRA whose gradients are preconditioned by the other factor's Gram matrix, as in scaled gradient descent.

    grad_A is multiplied by (B^T B + eps)^{-1}, grad_B by (A A^T + eps)^{-1}, each divided by its Frobenius norm.
    """

    def optimizer(self, adapter: Adapter, groups: list[dict[str, Any]], total_steps: int) -> torch.optim.Optimizer:
        """AdamW on preconditioned gradients; see `Method.optimizer`."""
        optimizer = super().optimizer(adapter, groups, total_steps)

        @torch.no_grad()
        def precondition(*_: object) -> None:
            for layer in adapter.layers.values():
                if layer.A.grad is not None and layer.B.any():  # B = 0 before the first step: nothing to divide by
                    layer.A.grad = preconditioner(layer.B.T @ layer.B) @ layer.A.grad
                if layer.B.grad is not None:
                    layer.B.grad = layer.B.grad @ preconditioner(layer.A @ layer.A.T)

        optimizer.register_step_pre_hook(precondition)
        return optimizer


def preconditioner(gram: Tensor) -> Tensor:
    """The inverse of a damped Gram matrix, (r, r), at Frobenius norm 1."""
    inverse = torch.linalg.inv(gram + DAMPING * torch.eye(len(gram), device=gram.device))
    normalised: Tensor = inverse / inverse.norm()
    return normalised
