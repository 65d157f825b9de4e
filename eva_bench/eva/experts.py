"""Experts that a model keeps in one parameter: the rows that each of them receives.

Since version 5, transformers holds the experts of a layer in three-dimensional parameters, which PEFT adapts by
`target_parameters`: one LoRA layer for all experts, in whose A expert i has its own rows, `i * r` to `(i + 1) * r`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from eva_bench.eva.inputs import default_forward
from eva_bench.eva.reader import Forward
from eva_bench.models.batches import default_row_mask

CHILD = "expert"  # of a LoRA layer, while its experts are looked at: `<layer>.expert.<i>`
FIRST, SECOND = "gate_up_proj", "down_proj"  # transformers' names of an expert's two products


class FusedExperts:
    """The experts behind the LoRA layers of an adapter, as layers that the engine can look at.

    Inside a `with` block every expert is a submodule `<layer>.expert.<i>` that sees what the expert multiplies.

    Args:
        model: the PEFT model; left as it was when the block ends.
        adapter_name: of the adapter.
        use_label_mask: as in `SolverConfig`.

    Attributes:
        ranks: by name of the expert; they cannot be redistributed, as all experts of a layer share one rank.
    """

    def __init__(self, model: nn.Module, adapter_name: str, use_label_mask: bool = False):
        self._use_label_mask = use_label_mask
        self._wrappers = {name: layer for name, layer in parameter_layers(model, adapter_name) if _is_known(layer)}
        self.ranks: dict[str, int] = {
            f"{name}.{CHILD}.{i}": layer.r[adapter_name]
            for name, layer in self._wrappers.items()
            for i in range(layer.num_experts)
        }
        self._mask: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "FusedExperts":
        experts: dict[nn.Module, dict[str, nn.ModuleList]] = {}
        for layer in self._wrappers.values():
            seen = nn.ModuleList(_Expert(layer.in_features, layer.out_features) for _ in range(layer.num_experts))
            layer.add_module(CHILD, seen)
            experts.setdefault(layer.get_base_layer(), {})[layer.parameter_name] = seen
        for module, by_parameter in experts.items():
            self._handles.append(module.register_forward_pre_hook(self._hook(by_parameter), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for layer in self._wrappers.values():
            delattr(layer, CHILD)

    def forward(self, forward: Forward | None) -> Forward | None:
        """The same way to run the model, with padding noted: experts receive tokens without their positions."""
        if not self.ranks:
            return forward

        def run(module: nn.Module, batch: Any) -> object:
            self._mask = default_row_mask(batch, self._use_label_mask)
            return (forward or default_forward)(module, batch)

        return run

    def _hook(self, seen: dict[str, nn.ModuleList]) -> Any:
        def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden, chosen, *_ = (*args, *kwargs.values())  # (..., in) and (tokens, experts per token)
            tokens = hidden.reshape(-1, hidden.shape[-1])
            counts = self._mask is None or self._mask.flatten().to(tokens.device)
            for i in range(module.num_experts):
                rows = tokens[(chosen.reshape(len(tokens), -1) == i).any(1) & counts]
                if not len(rows):
                    continue
                if FIRST in seen:
                    seen[FIRST][i](rows)
                if SECOND in seen and not module.gate_up_proj.is_meta:
                    seen[SECOND][i](module._apply_gate(_first_product(module, i, rows)))

        return look


class _Expert(nn.Module):
    """Stands for one expert's product: only its input is of interest."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features

    def forward(self, rows: Tensor) -> Tensor:
        return rows


def parameter_layers(model: nn.Module, adapter_name: str) -> Iterator[tuple[str, Any]]:
    """The LoRA layers of an adapter that sit on a parameter and not on a module, by name."""
    for name, layer in model.named_modules():
        if isinstance(layer, ParamWrapper) and adapter_name in layer.r:
            yield name, layer


def write_experts(name: str, layer: Any, adapter_name: str, rows: dict[str, Tensor]) -> int:
    """Write the rows of experts into A, and zeros into B.

    Args:
        name: of the LoRA layer.
        layer: on a parameter; changed in place.
        adapter_name: of the adapter.
        rows: (rank, in) by name of the expert, other layers' too.

    Returns:
        How many experts keep the rows that they had.
    """
    given = {i: rows[key] for i in range(layer.num_experts) if (key := f"{name}.{CHILD}.{i}") in rows}
    A = layer.lora_A[adapter_name].weight
    by_expert = A.view(layer.num_experts, -1, A.shape[1])  # (experts, r, in)
    for i, values in given.items():
        by_expert[i, : len(values)] = values.to(A)
    if given:
        layer.lora_B[adapter_name].weight.zero_()
    return int(layer.num_experts) - len(given)


def _is_known(layer: Any) -> bool:
    """Whether the rows of the experts can be told: transformers' gated experts with weights that are numbers."""
    base = layer.get_base_layer()
    first = getattr(base, FIRST, None)
    return (
        layer.num_experts > 1
        and layer.parameter_name in (FIRST, SECOND)
        and hasattr(base, "_apply_gate")
        and isinstance(first, Tensor)
        and first.is_floating_point()
    )


def _first_product(module: Any, i: int, rows: Tensor) -> Tensor:
    weight = module.gate_up_proj[i]
    bias = module.gate_up_proj_bias[i] if getattr(module, "has_bias", False) else None
    return torch.nn.functional.linear(rows, weight.T if module.is_transposed else weight, bias)
