"""Gradients of the loss with respect to the pretrained weights, one layer at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from eva_bench.methods.base import Initialisation, LowRankMethod, method_config, target_layers
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.system.errors import UserError
from eva_bench.system.progress import Bar


class LossBatches(Protocol):
    """Calibration batches that know their loss; `eva_bench.task.Calibration` is one."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Mapping[str, Tensor]]: ...
    def loss(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean loss per prediction of one batch, a scalar with gradients."""
        ...


@method_config
class GradientMethod(LowRankMethod):
    """Base class of methods whose factors come from the leading singular triplets of a layer's gradient.

    Attributes:
        batches: calibration batches that are read, forwards and backwards.
        stable_gamma: the constant of these methods that sets the size of the factors.
        triplets_per_rank: how many triplets the method needs for each rank.
    """

    batches: int
    stable_gamma: float
    svd: Literal["randomised", "exact"]
    triplets_per_rank: ClassVar[int] = 1
    uses_data = True
    uses_gradients = True

    def check(self, bundle: ModelBundle) -> None:
        """Refuse a rank for which a gradient has too few directions; see `Method.check`."""
        super().check(bundle)
        count = self.triplets_per_rank * self.rank
        for name, layer in target_layers(bundle).items():
            if count > (most := min(weight_matrix(layer).shape)):
                raise UserError(
                    f"this method takes {count} directions from a gradient at rank {self.rank}; "
                    f"that of layer '{name}' has {most}."
                )

    def initialise(self, bundle: ModelBundle, calibration: Any, seed: int) -> Initialisation:
        """The factors of each layer from its gradient; see `Method.initialise`."""
        self.check(bundle)
        factors: dict[str, Factors] = {}
        count = self.triplets_per_rank * self.rank
        order = {name: index for index, name in enumerate(bundle.targets)}

        def use(name: str, gradient: Tensor) -> None:
            U, S, V = truncated_svd(gradient, count, method=self.svd, seed=seed + order[name])
            factors[name] = self.gradient_factors(U, S, V)

        read = layer_gradients(bundle, calibration, self.batches, use)
        return Initialisation(factors={name: factors[name] for name in bundle.targets}, facts={"batches": read})

    @abstractmethod
    def gradient_factors(self, U: Tensor, S: Tensor, V: Tensor) -> Factors:
        """Initial factors of one layer.

        Args:
            U: left singular vectors of the gradient, (out, k), with k = triplets_per_rank * rank.
            S: singular values, (k,), descending.
            V: right singular vectors, (k, in).

        Returns:
            A (rank, in) and B (out, rank).
        """


def layer_gradients(
    bundle: ModelBundle, calibration: LossBatches, batches: int, use: Callable[[str, Tensor], None]
) -> int:
    """Call `use(name, gradient)` once for every target layer, with the mean over batches of the weight's gradient.

    The gradient of a layer is made when the backward pass reaches it and is dropped after its use: on the device of
    the model there is never more than one. With several batches their sums wait in the computer's memory.

    Args:
        bundle: the untouched model; neither its weights nor their `requires_grad` are changed.
        calibration: batches and their loss; the model is in evaluation mode (no dropout).
        batches: how many to read, at most.
        use: called in the order of the last backward pass; the gradient is (out, in) float32.

    Returns:
        How many batches were read.

    Raises:
        UserError: the gradient of a layer is zero, not finite, or never arrives; with the name of the layer.
    """
    total = min(batches, len(calibration))
    waiting = set(target_layers(bundle))

    def finish(name: str, gradient: Tensor) -> None:
        if not torch.isfinite(gradient).all():
            raise UserError(f"the gradient of layer '{name}' is not finite: nothing can be initialised from it.")
        if not gradient.any():
            raise UserError(f"the gradient of layer '{name}' is zero, so that nothing can be initialised from it.")
        waiting.discard(name)
        use(name, gradient / total)

    with _frozen(bundle.module), Bar("gradients", quiet_s=2.0) as bar, torch.enable_grad():
        tap = _GradientTap(target_layers(bundle), finish)
        with tap:
            for index, batch in zip(range(total), calibration, strict=False):
                tap.last = index + 1 == total
                calibration.loss(bundle.module, batch).backward()
                bar(index + 1, total)
    for name, gradient in tap.sums.items():  # layers that the last batch did not use
        finish(name, gradient)
    if waiting:
        raise UserError(
            f"the loss does not depend on layer '{min(waiting)}', which has no gradient to initialise from."
        )
    return total


class _GradientTap:
    """Hooks that make the gradient of a layer's weight from its input and the gradient of its output.

    The weights stay frozen, so that no gradients pile up in them, and a weight that is shared with an embedding gets
    the gradient of its linear use only.
    """

    def __init__(self, layers: Mapping[str, nn.Module], finish: Callable[[str, Tensor], None]):
        self.layers, self.finish = layers, finish
        self.sums: dict[str, Tensor] = {}
        self.last = False  # whether this is the last batch
        self._open: dict[str, int] = dict.fromkeys(layers, 0)  # calls whose gradient is still to come
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> _GradientTap:
        for name, layer in self.layers.items():
            self._handles.append(layer.register_forward_hook(self._forward_hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _forward_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def watch(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].detach()
            if not output.requires_grad:  # the first target: nothing below it has gradients
                output = output + torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True)
            self._open[name] += 1
            output.register_hook(lambda gradient: self._take(name, x, gradient))
            return output

        return watch

    @torch.no_grad()
    def _take(self, name: str, x: Tensor, gradient: Tensor) -> None:
        """Add one call's share: (out, n) (n, in)."""
        share = gradient.reshape(-1, gradient.shape[-1]).float().T @ x.reshape(-1, x.shape[-1]).float()
        self._open[name] -= 1
        if (before := self.sums.pop(name, None)) is not None:
            share += before.to(share.device)
        if self.last and not self._open[name]:
            self.finish(name, share)
        else:
            self.sums[name] = share.cpu()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Inside the block no parameter requires a gradient and the model is in evaluation mode."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    modes = {part: part.training for part in module.modules()}
    module.requires_grad_(False)
    module.eval()
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for part, mode in modes.items():
            part.training = mode
