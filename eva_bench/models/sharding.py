"""The weights of a frozen model split among the processes of a job (FSDP2, Zhao et al., arXiv:2304.11277).

torch's `fully_shard`, which Accelerate calls too, used directly: Accelerate's plugin works on GPUs only, and would
split what is put in afterwards. Every process holds a part of each weight; a block gathers its weights while it
computes. Low-rank factors are put in after the split, so that every process holds them whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from eva_bench.models.bundle import ModelBundle

T = TypeVar("T")


def split(bundle: ModelBundle, device: torch.device | str) -> ModelBundle:
    """The same bundle, each process of the job with its part of every weight on its device.

    Args:
        bundle: with all weights, on the CPU, the same in every process.
        device: of this process.
    """
    module = bundle.module.requires_grad_(False)
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    for block in blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for part in module.modules():  # buffers are not split
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(device)
    return bundle


def blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a transformers model, as its class names them."""
    names = getattr(module, "_no_split_modules", None) or ()
    return [part for part in module.modules() if type(part).__name__ in names]


def in_turn(action: Callable[[], T]) -> T:
    """The result of an action that the processes of a node do one after the other, for the sake of its memory."""
    for turn in range(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))):
        if turn == int(os.environ.get("LOCAL_RANK", "0")):
            result = action()
        dist.barrier()
    return result


def is_split(module: nn.Module) -> bool:
    """Whether the weights are split among processes."""
    return isinstance(module, FSDPModule)


def inference(module: nn.Module) -> AbstractContextManager[None]:
    """Inference mode; only without gradients where gathered weights would have to be used outside it again."""
    return torch.no_grad() if is_split(module) else torch.inference_mode()


def whole(weight: Tensor) -> Tensor:
    """A weight that may be split, gathered; all processes ask for it at the same time."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
