"""What happens where a device's memory runs out: the same work again in smaller batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from eva_bench.system.progress import warn

Result = TypeVar("Result")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory of device or host ran out."""
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def release() -> None:
    """Give cached blocks of the device back, after the tensors of a failed attempt are gone."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_halves(action: Callable[[int], Result], size: int, setting: str) -> tuple[Result, int]:
    """The result of an action that takes a batch size, halved as often as memory runs out.

    Args:
        action: called with the size; what it finished before it failed it must find again by itself.
        size: the first one to try.
        setting: its name, for the warning.

    Returns:
        The result, and the size that worked.

    Raises:
        RuntimeError: memory runs out with a size of 1, or something else is wrong.
    """
    while True:
        try:
            return action(size), size
        except RuntimeError as error:
            if not out_of_memory(error) or size == 1:
                raise
        # Not inside `except`: its traceback would keep the tensors of the failed attempt.
        release()
        size = max(1, size // 2)
        warn(f"out of memory: the evaluation goes on after the last finished answers with {setting}={size}")
