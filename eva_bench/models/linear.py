"""Linear maps seen as (out, in), whatever stores them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eva_bench.system.errors import UserError


def weight_matrix(layer: nn.Module) -> Tensor:
    """A view of the layer's weight as (out, in); GPT-2's Conv1D stores its transpose."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


def is_adaptable(layer: nn.Module) -> bool:
    """Whether the layer is a linear map with a floating-point weight."""
    return isinstance(layer, (nn.Linear, Conv1D)) and layer.weight.is_floating_point()


def find_targets(module: nn.Module, endings: Sequence[str], outside: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the linear layers whose last parts are one of `endings`, in module order.

    Indices in names do not count: `layer.output.dense` is `layer.0.output.dense` and its like, and not
    `layer.0.attention.output.dense`.

    Args:
        module: the model.
        endings: last parts of names, such as `q_proj`.
        outside: modules whose layers are never targets, such as a head that is trained in full.

    Returns:
        The names.

    Raises:
        UserError: an ending matches no adaptable layer; names the ones that exist.
    """
    linear = [name for name, layer in module.named_modules() if is_adaptable(layer)]
    linear = [name for name in linear if not any(f"{name}.".startswith(f"{part}.") for part in outside)]
    plain = {name: "." + ".".join(part for part in name.split(".") if not part.isdigit()) for name in linear}
    matches = {ending: [name for name in linear if plain[name].endswith(f".{ending}")] for ending in endings}
    last = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
    if unmatched := [ending for ending, names in matches.items() if not names]:
        raise UserError(f"model.targets: {', '.join(unmatched)} matches no linear layer of the model; it has {last}.")
    if not endings:
        raise UserError(f"model.targets is empty; the model has {last}.")
    return tuple(name for name in linear if any(name in names for names in matches.values()))
