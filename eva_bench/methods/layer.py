"""Adapted layers: one low-rank layer for every method, its counting, merging and export.

Convention (PEFT's): a linear map is `y = W x` with W (out, in); an adapter adds
`scale * B diag(s) A x` with A (r, in), s (r,) or absent, B (out, r).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eva_bench.models.linear import weight_matrix
from eva_bench.models.sharding import is_split
from eva_bench.system.progress import warn


@dataclass(frozen=True)
class Factors:
    """The low-rank factors of one layer: `delta = scale * B diag(s) A`.

    Attributes:
        A: (r, in).
        B: (out, r).
        s: (r,); None means ones.
        magnitude: (out,), the row norms that DoRA trains; None without them.
        scale: a constant.
    """

    A: Tensor
    B: Tensor
    s: Tensor | None = None
    magnitude: Tensor | None = None
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Number of components."""
        return self.A.shape[0]

    def scaled_B(self) -> Tensor:
        """B diag(s), (out, r)."""
        return self.B if self.s is None else self.B * self.s

    def delta(self) -> Tensor:
        """The update scale * B diag(s) A, (out, in)."""
        return self.scale * (self.scaled_B() @ self.A)

    def tensors(self) -> dict[str, Tensor]:
        """The factors that are there, by name."""
        named = {"A": self.A, "B": self.B, "s": self.s, "magnitude": self.magnitude}
        return {name: value for name, value in named.items() if value is not None}


class LowRankLinear(nn.Module):
    """A frozen linear layer plus `scale * B diag(s) A x`, optionally with DoRA's magnitude.

    Args:
        base: nn.Linear or Conv1D; its weight is reduced in place where the method says so.
        factors: initial factors; copied, kept in float32 whatever the base's dtype.
        trained: which of "A", "B", "s", "magnitude" receive gradients.
    """

    base: nn.Linear | Conv1D
    A: nn.Parameter
    B: nn.Parameter
    s: nn.Parameter | None
    magnitude: nn.Parameter | None

    def __init__(self, base: nn.Linear | Conv1D, factors: Factors, trained: tuple[str, ...]):
        super().__init__()
        self.base = base
        self.scale = factors.scale
        self.trains_basis = "A" in trained or "B" in trained
        self.merged_weight: Tensor | None = None
        for name in ("A", "B", "s", "magnitude"):
            value, parameter = factors.tensors().get(name), None
            if value is not None:
                value = value.detach().to(base.weight.device, torch.float32, copy=True).contiguous()
                parameter = nn.Parameter(value, requires_grad=name in trained)
            self.register_parameter(name, parameter)

    def factors(self) -> Factors:
        """The current factors, not copied."""
        return Factors(self.A, self.B, self.s, self.magnitude, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, (..., out), for inputs x, (..., in)."""
        autocast = torch.is_autocast_enabled(x.device.type)
        plain = self.merged_weight is None and not autocast and self.base.weight.dtype == torch.float32
        if plain and not self.trains_basis:
            # A fixed basis of high rank (SVFit): one dense product per batch is cheaper than two more per token.
            return F.linear(x, weight_matrix(self.base) + self.factors().delta(), self.base.bias)
        y: Tensor = self.base(x)  # (..., out)
        if self.merged_weight is not None:
            return y
        if not autocast:
            x = x.to(self.A.dtype)
        low = F.linear(x, self.A)  # (..., r)
        if self.s is not None:
            low = low * self.s
        update = F.linear(low, self.B)  # (..., out)
        if self.magnitude is not None:
            return self._dora(y, update)
        return y + (self.scale * update).to(y.dtype)

    def _dora(self, y: Tensor, update: Tensor) -> Tensor:
        """Scale the output by m / ||W0 + s B A|| per output row, the norm treated as a constant (DoRA, section 4.3)."""
        with torch.no_grad():
            norm = (weight_matrix(self.base) + self.factors().delta()).norm(dim=1)  # (out,)
        bias = 0.0 if self.base.bias is None else self.base.bias
        result = (self.magnitude / norm) * (y - bias + self.scale * update) + bias
        return cast("Tensor", result.to(y.dtype))

    def merged_matrix(self) -> Tensor:
        """The trained weight, (out, in), in float32."""
        merged: Tensor = weight_matrix(self.base).float() + self.factors().delta()
        if self.magnitude is None:
            return merged
        return cast("Tensor", merged * (self.magnitude / merged.norm(dim=1)).unsqueeze(1))


class Adapter:
    """A model with low-rank layers put in, and everything needed to train, store and export it.

    Attributes:
        module: the model, changed in place.
        layers: adapted layers by the name they have in the untouched model.
        initial: factors that were subtracted from the base weights (PiSSA and relatives), on the CPU.
        head: names of modules that are trained in full beside the adapters.
        biases: the biases that are trained, too, by the names they have in the untouched model.
        targets: names of the layers that would be adapted, where all weights are trained instead.
    """

    def __init__(self, module: nn.Module, head: tuple[str, ...] = (), targets: tuple[str, ...] = ()):
        self.module = module
        self.layers: dict[str, LowRankLinear] = {}
        self.initial: dict[str, Factors] = {}
        self.head, self.targets = head, targets
        self.biases: dict[str, nn.Parameter] = {}

    @classmethod
    def install(
        cls,
        module: nn.Module,
        factors: dict[str, Factors],
        *,
        trained: tuple[str, ...],
        reduces_base: bool = False,
        magnitude: bool = False,
        head: tuple[str, ...] = (),
        biases: bool = False,
    ) -> Adapter:
        """Freeze the model and put a LowRankLinear around each named layer.

        Args:
            module: the model, changed in place.
            factors: initial factors by layer name; layers that are not named stay as they are.
            trained: which factors receive gradients.
            reduces_base: subtract the initial product from the base weight, so that the function is unchanged
                although the product is not zero; the exported adapter then has rank 2r.
            magnitude: train DoRA's row norms, too, from those of the adapted weight; a layer with a row of zeros
                cannot be normalised and is left unadapted, with a warning.
            head: names of modules that are trained in full.
            biases: train every bias of the model.

        Returns:
            The adapter around the changed model.
        """
        adapter = cls(module, head)
        module.requires_grad_(False)
        for name in head:
            module.get_submodule(name).requires_grad_(True)
        if biases:
            adapter.biases = {name: p for name, p in module.named_parameters() if name.rpartition(".")[2] == "bias"}
            for bias in adapter.biases.values():
                bias.requires_grad_(True)
        for name, initial in factors.items():
            base = cast("nn.Linear | Conv1D", module.get_submodule(name))
            if magnitude and not weight_matrix(base).any(dim=1).all():
                warn(f"layer '{name}' has a row of zeros, which DoRA cannot normalise: it is left unadapted")
                continue
            if reduces_base:
                own_weight(module, base)
                matrix = weight_matrix(base)
                matrix.data.copy_(matrix.float() - initial.delta().to(matrix.device))
                adapter.initial[name] = _on_cpu(initial)
            layer = LowRankLinear(base, initial, trained)
            if magnitude:
                layer.magnitude = nn.Parameter(layer.merged_matrix().detach().norm(dim=1))
            _replace(module, name, layer)
            adapter.layers[name] = layer
        return adapter

    @classmethod
    def whole_model(cls, module: nn.Module, targets: tuple[str, ...] = ()) -> Adapter:
        """Full fine-tuning: no low-rank layers, every parameter trained, in float32."""
        return cls(module.float().requires_grad_(True), targets=targets)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that receive gradients, by name in the changed model (tied ones once)."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def trainable_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.trained().values())

    def ranks(self) -> dict[str, int]:
        """The rank of every adapted layer."""
        return {name: layer.factors().rank for name, layer in self.layers.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the trained tensors on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.trained().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy trained tensors back.

        Args:
            state: what `state_dict` returned for an adapter of the same kind.

        Raises:
            KeyError: the names are not exactly the trained ones.
        """
        trained = self.trained()
        if missing := set(trained) ^ set(state):
            raise KeyError(f"stored and trained tensors differ: {sorted(missing)[:3]}")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(state[name])

    def lora_factors(self) -> dict[str, Factors]:
        """Per layer, factors relative to the *original* weights, s folded into B.

        With W_res = W0 - c B0 A0 the trained function is W0 + c [B1, -B0] [A1; A0]: rank 2r.
        """
        result = {}
        for name, layer in self.layers.items():
            now = layer.factors()
            A, B = now.A.detach().cpu(), now.scaled_B().detach().cpu()
            if first := self.initial.get(name):
                A = torch.cat([A, first.A.to(A.dtype)])  # (2r, in)
                B = torch.cat([B, -first.scaled_B().to(B.dtype)], dim=1)  # (out, 2r)
            magnitude = None if now.magnitude is None else now.magnitude.detach().cpu()
            result[name] = Factors(A, B, None, magnitude, now.scale)
        return result

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Inside the block float32 layers carry their update in the weight: the same function, faster.

        Lower precisions stay unmerged, because rounding W0 + delta to bf16 loses small updates. What the weights were
        is kept in the memory of the host, so that the device holds every weight once. Nor are weights merged that are
        split among processes.
        """
        float32 = [layer for layer in self.layers.values() if layer.base.weight.dtype == torch.float32]
        changed = [] if is_split(self.module) else float32
        with torch.no_grad():
            for layer in changed:
                own_weight(self.module, layer.base)
                layer.merged_weight = layer.base.weight.data.to("cpu", copy=True)
                weight_matrix(layer.base).data.copy_(layer.merged_matrix())
        try:
            yield
        finally:
            for layer in changed:
                layer.base.weight.data.copy_(cast("Tensor", layer.merged_weight))
                layer.merged_weight = None

    @contextmanager
    def plain_model(self) -> Iterator[None]:
        """Inside the block the module has the architecture it came with, its float32 layers the trained weights."""
        with self.merged():
            for name, layer in self.layers.items():
                _replace(self.module, name, layer.base)
            try:
                yield
            finally:
                for name, layer in self.layers.items():
                    _replace(self.module, name, layer)


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    """Put a module in the place of the one with this name."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, part)


def _on_cpu(factors: Factors) -> Factors:
    return Factors(**{name: tensor.cpu() for name, tensor in factors.tensors().items()}, scale=factors.scale)


def own_weight(module: nn.Module, layer: nn.Linear | Conv1D) -> None:
    """Give a layer whose weight is tied to another's (language-model head, embedding) a copy of its own."""
    users = [m for m in module.modules() if getattr(m, "weight", None) is layer.weight]
    if len(users) > 1:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=layer.weight.requires_grad)
