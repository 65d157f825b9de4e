"""Several processes, one result; and how much memory was used. Without torch.distributed these do nothing."""

import resource

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(vectors: list[Tensor]) -> None:
    """Add up each float64 vector over all processes, in place, with one all-reduce."""
    if processes() == 1:
        return
    packed = torch.cat([vector.to(vectors[0].device) for vector in vectors])
    dist.all_reduce(packed)
    _unpack(packed, vectors)


def share_from_first(vectors: list[Tensor]) -> None:
    """Overwrite each vector with the one of process 0, with one broadcast."""
    if processes() == 1:
        return
    packed = torch.cat([vector.to(vectors[0].device) for vector in vectors])
    dist.broadcast(packed, 0)
    _unpack(packed, vectors)


def _unpack(packed: Tensor, vectors: list[Tensor]) -> None:
    for part, vector in zip(packed.split([v.numel() for v in vectors]), vectors, strict=True):
        vector.copy_(part)


def reset_peak(device: torch.device) -> None:
    """Start measuring the peak of a GPU; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Highest memory in use: of the GPU since `reset_peak`, else of the process since it started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
