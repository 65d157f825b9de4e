"""When to look whether enough batches have been read, and how to tell."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from eva_bench.eva import collective
from eva_bench.eva.subspace import LayerSubspace

GROWTH = 1.5  # each look comes after this many times the batches of the one before


def check_points(limit: int) -> Iterator[int]:
    """Numbers of batches after which to look: 2, 4, 6, 9, 14, 21, ... and the limit."""
    point = 2
    while point < limit:
        yield point
        point = max(point + 2, math.ceil(point * GROWTH))
    yield limit


class Trial:
    """Compares two bases on batches that neither has seen.

    The error of a basis falls like 1/n with the batches n behind it, so what the newer basis gains over the older
    one, on fresh data, also tells how much is still to be gained.

    Args:
        old, new: subspaces per layer; their groups are measured once.
        spectra: of the newer ones, for the means.
        ranks: how many components of each layer count.
        operands: type of the factors of the products; rounding is the same for both bases.
    """

    def __init__(
        self, old, new: dict[str, LayerSubspace], means: dict[str, Tensor], ranks: dict[str, int], operands: torch.dtype
    ):
        self.means, self.ranks, self.new = means, ranks, new
        self.bases = {
            name: torch.cat([old[name].components, new[name].components]).T.to(operands).contiguous()
            for name in new
            if name in means
        }  # (in, 2k)
        self.energies = {
            name: torch.zeros(1 + basis.shape[1], dtype=torch.float64, device=basis.device)
            for name, basis in self.bases.items()
        }  # all, then per component of the old and of the new basis

    def add(self, leader: str, rows: Tensor) -> None:
        """Measure shifted rows, (n, in)."""
        rows = rows - self.means[leader]
        flat = rows.flatten()
        self.energies[leader][0] += torch.dot(flat, flat)
        basis = self.bases[leader]
        self.energies[leader][1:] += (rows.to(basis.dtype) @ basis).float().square().sum(0)

    def gain(self) -> float | None:
        """Share of the captured variance that the newer basis adds, summed over layers as shares of their variance."""
        collective.sum_over_processes(list(self.energies.values()))
        old = new = 0.0
        for name, subspace in self.new.items():
            total, *parts = self.energies[subspace.group].tolist()
            k, rank = len(parts) // 2, self.ranks[name]
            if total > 0:
                old += sum(parts[:rank]) / total
                new += sum(parts[k : k + rank]) / total
        return 1 - old / new if new > 0 else None
