"""The plain container that a loaded model travels in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass
class ModelBundle:
    """A loaded model and what is needed to adapt it.

    Attributes:
        module: the model, on its device, in its dtype.
        processor: tokenizer (text) or transform (images).
        targets: names of the layers that methods adapt.
        kind: language, classifier, vision or decision.
        head: names of modules trained in full beside the adapters (classification head).
        biases: whether all biases of the model are trained, too.
        row_mask: from a batch to the bool masks (batch, length) of the rows of layer inputs that count; by default
            the attention mask.
        origin: facts for the record: id, revision, sha256, number of parameters, dtype.
    """

    module: nn.Module
    processor: Any
    targets: tuple[str, ...]
    kind: str
    head: tuple[str, ...] = ()
    biases: bool = False
    row_mask: Callable[[dict], Any] | None = None
    origin: dict[str, Any] = field(default_factory=dict)
