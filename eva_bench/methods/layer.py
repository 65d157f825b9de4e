"""Adapted layers: one low-rank layer for every method, its counting, merging and export.

Convention (PEFT's): a linear map is `y = W x` with W (out, in); an adapter adds
`scale * B diag(s) A x` with A (r, in), s (r,) or absent, B (out, r).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_bench.models.linear import weight_matrix


@dataclass(frozen=True)
class Factors:
    """The low-rank factors of one layer: `delta = scale * B diag(s) A` (s absent means ones)."""

    A: Tensor  # (r, in)
    B: Tensor  # (out, r)
    s: Tensor | None = None  # (r,)
    magnitude: Tensor | None = None  # (out,) DoRA's row norms
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    def scaled_B(self) -> Tensor:
        """B diag(s), (out, r)."""
        return self.B if self.s is None else self.B * self.s

    def delta(self) -> Tensor:
        """scale * B diag(s) A, (out, in)."""
        return self.scale * (self.scaled_B() @ self.A)

    def tensors(self) -> dict[str, Tensor]:
        named = {"A": self.A, "B": self.B, "s": self.s, "magnitude": self.magnitude}
        return {name: value for name, value in named.items() if value is not None}


class LowRankLinear(nn.Module):
    """A frozen linear layer plus `scale * B diag(s) A x`, optionally with DoRA's magnitude.

    Args:
        base: nn.Linear or Conv1D; its weight is reduced in place where the method says so.
        factors: the start; copied, kept in float32 whatever the base's dtype.
        trained: which of "A", "B", "s", "magnitude" receive gradients.
    """

    def __init__(self, base: nn.Module, factors: Factors, trained: tuple[str, ...]):
        super().__init__()
        self.base = base
        self.scale = factors.scale
        self.trains_basis = "A" in trained or "B" in trained
        self.merged_weight: Tensor | None = None
        for name in ("A", "B", "s", "magnitude"):
            value = factors.tensors().get(name)
            if value is not None:
                value = value.detach().to(base.weight.device, torch.float32, copy=True).contiguous()
                value = nn.Parameter(value, requires_grad=name in trained)
            self.register_parameter(name, value)

    def factors(self) -> Factors:
        return Factors(self.A, self.B, self.s, self.magnitude, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged_weight is not None:
            return self.base(x)
        autocast = torch.is_autocast_enabled(x.device.type)
        if not self.trains_basis and not autocast and self.base.weight.dtype == torch.float32:
            # A fixed basis of high rank (SVFit): one dense product per batch is cheaper than two more per token.
            return F.linear(x, weight_matrix(self.base) + self.factors().delta(), self.base.bias)
        y = self.base(x)  # (..., out)
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
        """m / ||W0 + s B A|| per output row, the norm treated as a constant (DoRA, section 4.3)."""
        with torch.no_grad():
            norm = (weight_matrix(self.base) + self.factors().delta()).norm(dim=1)  # (out,)
        bias = self.base.bias
        linear = y if bias is None else y - bias
        result = (self.magnitude / norm) * (linear + self.scale * update)
        return (result if bias is None else result + bias).to(y.dtype)

    def merged_matrix(self) -> Tensor:
        """The trained weight, (out, in), in float32."""
        merged = weight_matrix(self.base).float() + self.factors().delta()
        if self.magnitude is None:
            return merged
        return merged * (self.magnitude / merged.norm(dim=1)).unsqueeze(1)


class Adapter:
    """A model with low-rank layers put in, and everything needed to train, store and export it.

    Attributes:
        module: the model, changed in place.
        layers: adapted layers by the name they have in the untouched model.
        start: factors that were subtracted from the base weights (PiSSA and relatives), on the CPU.
        head: names of modules that are trained in full beside the adapters.
        biases: the biases that are trained, too, by the names they have in the untouched model.
    """

    def __init__(self, module: nn.Module, head: tuple[str, ...] = ()):
        self.module = module
        self.layers: dict[str, LowRankLinear] = {}
        self.start: dict[str, Factors] = {}
        self.head = head
        self.biases: dict[str, nn.Parameter] = {}

    @classmethod
    def install(
        cls, module, factors: dict[str, Factors], *, trained, reduces_base=False, head=(), biases=False
    ) -> Adapter:
        """Freeze the model and put a LowRankLinear around each named layer.

        Args:
            factors: start per layer name; layers that are not named stay as they are.
            reduces_base: subtract the start from the base weight, so that the function is unchanged
                although the start is not zero; the exported adapter then has rank 2r.
            biases: train every bias of the model.
        """
        adapter = cls(module, head)
        module.requires_grad_(False)
        for name in head:
            module.get_submodule(name).requires_grad_(True)
        if biases:
            named = module.named_parameters()
            adapter.biases = {name: p.requires_grad_(True) for name, p in named if name.rpartition(".")[2] == "bias"}
        for name, start in factors.items():
            base = module.get_submodule(name)
            if reduces_base:
                own_weight(module, base)
                matrix = weight_matrix(base)
                matrix.data.copy_(matrix.float() - start.delta().to(matrix.device))
                adapter.start[name] = replace(start, **{k: v.cpu() for k, v in start.tensors().items()})
            layer = LowRankLinear(base, start, trained)
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, layer)
            adapter.layers[name] = layer
        return adapter

    @classmethod
    def whole_model(cls, module: nn.Module) -> Adapter:
        """Full fine-tuning: no low-rank layers, every parameter trained, in float32."""
        module.float().requires_grad_(True)
        return cls(module)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that receive gradients, by name in the changed model (tied ones once)."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.trained().values())

    def ranks(self) -> dict[str, int]:
        return {name: layer.factors().rank for name, layer in self.layers.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the trained tensors on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.trained().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy trained tensors back; raises KeyError unless the names are exactly the trained ones."""
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
            if name in self.start:
                first = self.start[name]
                A = torch.cat([A, first.A.to(A.dtype)])  # (2r, in)
                B = torch.cat([B, -first.scaled_B().to(B.dtype)], dim=1)  # (out, 2r)
            magnitude = None if now.magnitude is None else now.magnitude.detach().cpu()
            result[name] = Factors(A, B, None, magnitude, now.scale)
        return result

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Inside the block float32 layers carry their update in the weight: the same function, faster.

        Lower precisions stay unmerged, because rounding W0 + delta to bf16 loses small updates.
        """
        changed = [layer for layer in self.layers.values() if layer.base.weight.dtype == torch.float32]
        with torch.no_grad():
            for layer in changed:
                own_weight(self.module, layer.base)
                layer.merged_weight = layer.base.weight.data.clone()
                weight_matrix(layer.base).data.copy_(layer.merged_matrix())
        try:
            yield
        finally:
            for layer in changed:
                layer.base.weight.data.copy_(layer.merged_weight)
                layer.merged_weight = None


def own_weight(module: nn.Module, layer: nn.Module) -> None:
    """Give a layer whose weight is tied to another's (language-model head, embedding) a copy of its own."""
    users = [m for m in module.modules() if getattr(m, "weight", None) is layer.weight]
    if len(users) > 1:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=layer.weight.requires_grad)
