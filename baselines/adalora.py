"""AdaLoRA (Zhang et al., arXiv:2303.10512): components compete for a budget that shrinks during training."""

import math
from typing import Any

import torch
from torch import Tensor

from eva_bench.methods.base import WeightMethod, layer_generator, method_config
from eva_bench.methods.layer import Adapter, Factors, LowRankLinear
from eva_bench.methods.orthogonality import orthogonality_penalty
from eva_bench.models.bundle import ModelBundle
from eva_bench.system.errors import UserError

INITIAL_STD = 0.02  # of P and Q, authors' code and PEFT


@method_config
class AdaLoRA(WeightMethod):
    """W0 + scale * P diag(lambda) Q with lambda = 0 at the start; P is B and Q is A.

    Every layer starts with round(rank * initial_ratio) components. Between `warmup_ratio` of the steps and
    `final_ratio` before the end the number that may be non-zero falls to `rank` a layer on average, along a cubic
    curve; every `interval` steps the lambdas of the least important components are set to zero. In the final phase
    the choice is fixed.
    """

    initial_ratio: float
    warmup_ratio: float
    final_ratio: float
    interval: int
    beta: float
    orthogonality: float
    trained = ("A", "s", "B")
    fixed_rank = False

    @property
    def initial_rank(self) -> int:
        """Components of a layer before any is taken away."""
        return round(self.rank * self.initial_ratio)

    def layer_rank(self, shape: tuple[int, int]) -> int:
        """The initial rank, as far as the layer allows; see `Method.layer_rank`."""
        return min(self.initial_rank, *shape)

    @property
    def scale(self) -> float:
        """The factor on P diag(lambda) Q: alpha over the initial rank (rsLoRA: its root)."""
        return self.alpha / (self.initial_rank if self.scaling is None else math.sqrt(self.initial_rank))

    def check(self, bundle: ModelBundle) -> None:
        """Refuse a schedule without a middle; see `Method.check`."""
        super().check(bundle)
        if self.warmup_ratio + self.final_ratio >= 1:
            raise UserError(
                f"method.warmup_ratio={self.warmup_ratio} and method.final_ratio={self.final_ratio} leave no steps "
                "in which AdaLoRA's budget can shrink."
            )

    def phases(self, total_steps: int) -> tuple[int, int]:
        """The last step of the warm-up, and the first of the final phase: between them the budget shrinks."""
        return int(self.warmup_ratio * total_steps), total_steps - int(self.final_ratio * total_steps)

    def check_steps(self, total_steps: int) -> None:
        """Refuse a training in which the budget never shrinks; see `Method.check_steps`."""
        first, last = self.phases(total_steps)
        if last - first < self.interval:
            raise UserError(
                f"{total_steps} steps are too few for AdaLoRA: its budget shrinks every method.interval="
                f"{self.interval} steps between step {first} and step {last}."
            )

    def layer_factors(self, weight: Tensor, seed: int, index: int) -> Factors:
        """P and Q Gaussian, lambda zero; see `WeightMethod.layer_factors`."""
        generator = layer_generator(seed, index)
        rank = self.layer_rank((weight.shape[0], weight.shape[1]))
        Q = INITIAL_STD * torch.randn(rank, weight.shape[1], generator=generator)
        P = INITIAL_STD * torch.randn(weight.shape[0], rank, generator=generator)
        return Factors(A=Q, B=P, s=torch.zeros(rank), scale=self.scale)

    def penalty(self, adapter: Adapter, peak_lr: float) -> Tensor | None:
        """The mean of ||P^T P - I||_F and ||Q Q^T - I||_F over all matrices; see `Method.penalty`."""
        return self.orthogonality * orthogonality_penalty(adapter) / (2 * len(adapter.layers))

    def optimizer(self, adapter: Adapter, groups: list[dict[str, Any]], total_steps: int) -> torch.optim.Optimizer:
        """AdamW with the budget enforced after every step; see `Method.optimizer`."""
        optimizer = super().optimizer(adapter, groups, total_steps)
        optimizer.register_step_post_hook(Budget(self, adapter, total_steps))
        return optimizer

    def export(self, adapter: Adapter) -> dict[str, Factors]:
        """The components whose lambda is not zero; a layer that has none keeps one that does nothing."""
        kept = {}
        for name, layer in adapter.layers.items():
            alive = singular_values(layer).detach().nonzero()[:, 0]
            alive = alive if len(alive) else torch.zeros(1, dtype=torch.long, device=layer.A.device)
            A, B = layer.A.detach()[alive].cpu(), layer.factors().scaled_B().detach()[:, alive].cpu()
            magnitude = None if layer.magnitude is None else layer.magnitude.detach().cpu()
            kept[name] = Factors(A, B, None, magnitude, layer.scale)
        return kept


class Budget:
    """Called after every optimiser step: follows the importance of components and zeroes the least important ones.

    Importance is the smoothed |parameter * gradient| times its smoothed variation (equations 8 to 11 of the paper);
    that of a component adds lambda's, the mean over its column of P and the mean over its row of Q. The smoothed values
    are
    kept in the optimiser's state, so that a resumed training goes on as if it had not been interrupted.
    """

    def __init__(self, method: AdaLoRA, adapter: Adapter, total_steps: int):
        self.method, self.layers = method, list(adapter.layers.values())
        self.first, self.last = method.phases(total_steps)
        self.initial = sum(len(singular_values(layer)) for layer in self.layers)
        self.target = min(self.initial, method.rank * len(self.layers))

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """One step of the schedule."""
        step = int(optimizer.state[singular_values(self.layers[0])]["step"])
        if step <= self.last:
            scores = torch.cat([self._scores(optimizer, layer) for layer in self.layers])
            if step == self.last or (step > self.first and step % self.method.interval == 0):
                self._prune(scores, self.budget(step))
            if step == self.last:
                for layer in self.layers:
                    s = singular_values(layer)
                    optimizer.state[s]["kept"] = (s != 0).to(s.dtype)
        else:
            for layer in self.layers:
                s = singular_values(layer)
                s.mul_(optimizer.state[s]["kept"])

    def budget(self, step: int) -> int:
        """How many components may be non-zero after a step, counted from 1."""
        done = min(1.0, max(0.0, (step - self.first) / (self.last - self.first)))
        return int((self.initial - self.target) * (1 - done) ** 3 + self.target)

    def _scores(self, optimizer: torch.optim.Optimizer, layer: LowRankLinear) -> Tensor:
        """Importance of each component of a layer, (r,), with this step's gradients taken in."""
        beta = self.method.beta
        means = []
        for parameter in (singular_values(layer), layer.A, layer.B):
            state = optimizer.state[parameter]
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            sensitivity = (parameter * gradient).abs()
            smooth = state.setdefault("importance", torch.zeros_like(parameter))
            variation = state.setdefault("variation", torch.zeros_like(parameter))
            smooth.mul_(beta).add_(sensitivity, alpha=1 - beta)
            variation.mul_(beta).add_((sensitivity - smooth).abs(), alpha=1 - beta)
            means.append(smooth * variation)
        scores: Tensor = means[0] + means[1].mean(dim=1) + means[2].mean(dim=0)
        return scores

    def _prune(self, scores: Tensor, budget: int) -> None:
        """Set lambda to zero for all but the `budget` most important components of all layers."""
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept[scores.topk(budget).indices] = True
        sizes = [len(singular_values(layer)) for layer in self.layers]
        for layer, mask in zip(self.layers, torch.split(kept, sizes), strict=True):
            singular_values(layer).masked_fill_(~mask, 0.0)


def singular_values(layer: LowRankLinear) -> torch.nn.Parameter:
    """The lambdas of a layer, (r,)."""
    assert layer.s is not None
    return layer.s
