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


def place(in_step: bool = False) -> tuple[int, int]:
    """Number of this process, and of all; the only one where all do the same, in step, because they share a model."""
    return (0, 1) if in_step else (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def share(count: int, in_step: bool = False) -> slice:
    """Which of `count` rows this process works on: a block of neighbours; all where there are fewer than processes."""
    rank, processes = place(in_step)
    if count < processes:
        return slice(0, count)
    return slice(rank * count // processes, (rank + 1) * count // processes)


def gathered(values: list[Value], count: int, in_step: bool = False) -> list[Value]:
    """The values of all `count` rows, in order, from the shares of all processes."""
    processes = place(in_step)[1]
    return list(gather_object(values)) if 1 < processes <= count else values


def of_first(value: Value) -> Value:
    """What the first process has."""
    if not distributed():
        return value
    box: list[Any] = [value]
    broadcast_object_list(box)
    return box[0]
