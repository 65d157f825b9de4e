"""Several processes, one result; and how much memory was used. Without torch.distributed these do nothing."""

import resource

import torch
import torch.distributed as dist
from torch import Tensor


class Processes:
    """The processes that work on one result.

    Args:
        together: False: this process works by itself, whatever torch.distributed says.
    """

    def __init__(self, together: bool = True):
        self.count: int = dist.get_world_size() if together and dist.is_available() and dist.is_initialized() else 1

    def sum(self, vectors: list[Tensor]) -> None:
        """Add up each float64 vector over all processes, in place, with one all-reduce."""
        if self.count == 1 or not vectors:
            return
        packed = torch.cat([vector.to(vectors[0].device) for vector in vectors])
        dist.all_reduce(packed)
        _unpack(packed, vectors)

    def share_from_first(self, vectors: list[Tensor]) -> None:
        """Overwrite each vector with the one of process 0, with one broadcast."""
        if self.count == 1 or not vectors:
            return
        packed = torch.cat([vector.to(vectors[0].device) for vector in vectors])
        dist.broadcast(packed, 0)
        _unpack(packed, vectors)

    def all_have(self, names: list[str]) -> bool:
        """Whether every process gave the same names; sums over different layers would mix or hang."""
        if self.count == 1:
            return True
        given: list[list[str]] = [[] for _ in range(self.count)]
        dist.all_gather_object(given, names)
        return all(other == names for other in given)


def _unpack(packed: Tensor, vectors: list[Tensor]) -> None:
    start = 0
    for vector in vectors:
        vector.copy_(packed[start : start + vector.numel()])
        start += vector.numel()


def reset_peak(device: torch.device) -> None:
    """Start measuring the peak of a GPU; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Highest memory in use: of the GPU since `reset_peak`, else of the process since it started."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
