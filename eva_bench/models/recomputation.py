"""Gradient checkpointing: activations of a block are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from eva_bench.system.errors import UserError


@contextmanager
def recomputed(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside the block, training keeps only what enters each block of the model, if that is wanted.

    Args:
        module: of transformers or timm, or one that holds such a module as a child.

    Raises:
        UserError: the model offers no gradient checkpointing.
    """
    if not wanted:
        yield
        return
    part = next((m for m in (module, *module.children()) if _offers(m)), None)
    if part is None:
        raise UserError("train.gradient_checkpointing=true: this model offers no gradient checkpointing.")
    _set(part, True)
    try:
        yield
    finally:
        _set(part, False)


def _offers(module: nn.Module) -> bool:
    return hasattr(module, "gradient_checkpointing_enable") or hasattr(module, "set_grad_checkpointing")


def _set(module: nn.Module, on: bool) -> None:
    if hasattr(module, "set_grad_checkpointing"):  # timm
        module.set_grad_checkpointing(on)
    elif on:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        module.gradient_checkpointing_disable()
