"""Linear maps seen as (out, in), whatever stores them."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def weight_matrix(layer: nn.Module) -> Tensor:
    """A view of the layer's weight as (out, in); GPT-2's Conv1D stores its transpose."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


def is_adaptable(layer: nn.Module) -> bool:
    """Whether the layer is a linear map with a floating-point weight."""
    return isinstance(layer, (nn.Linear, Conv1D)) and layer.weight.is_floating_point()
