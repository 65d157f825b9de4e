"""Batches: which positions count, padding that can go, and the move to a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

IGNORED_LABEL = -100  # label of positions that do not enter a loss


def default_row_mask(batch: Any, use_label_mask: bool) -> Tensor | None:
    """Positions that count, (batch, length) bool: attention mask and, if asked, labels that are not -100."""
    if not isinstance(batch, Mapping):
        return None
    mask = batch.get("attention_mask")
    mask = mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None
    labels = batch.get("labels")
    if use_label_mask and isinstance(labels, Tensor) and labels.ndim == 2:
        labelled = labels != IGNORED_LABEL
        mask = labelled if mask is None else mask & labelled
    return mask


def trim_padding(batch: Any) -> Any:
    """Cut off the columns on the right in which every sequence is padding; nothing else depends on them."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.ndim != 2 or not mask.any():
        return batch
    length = int(mask.any(0).nonzero().max()) + 1
    if length == mask.shape[1]:
        return batch
    return {
        key: value[:, :length] if isinstance(value, Tensor) and value.shape[:2] == mask.shape else value
        for key, value in batch.items()
    }


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a (nested) batch."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
