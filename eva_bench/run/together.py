"""Several processes as one run: they join, share rows, and agree on what the first one knows."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from eva_bench.system.processes import distributed

Value = TypeVar("Value")


def join(device: torch.device) -> None:
    """Connect the processes that `accelerate launch` or torchrun started: gloo on CPUs, NCCL on GPUs."""
    if distributed():
        PartialState(cpu=device.type == "cpu")


def place() -> tuple[int, int]:
    """Number of this process, and of all."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def share(count: int) -> slice:
    """Which of `count` rows this process works on: a block of neighbours; all where there are fewer than processes."""
    rank, processes = place()
    if count < processes:
        return slice(0, count)
    return slice(rank * count // processes, (rank + 1) * count // processes)


def gathered(values: list[Value], count: int) -> list[Value]:
    """The values of all `count` rows, in order, from the shares of all processes."""
    return list(gather_object(values)) if distributed() and count >= place()[1] else values


def of_first(value: Value) -> Value:
    """What the first process has."""
    if not distributed():
        return value
    box: list[Any] = [value]
    broadcast_object_list(box)
    return box[0]
