"""When to check whether enough batches have been read, and how to tell."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from eva_bench.eva import collective
from eva_bench.eva.moments import Moments
from eva_bench.eva.subspace import LayerSubspace

GROWTH = 1.5  # each check comes after this many times the batches of the one before


def check_points(limit: int) -> Iterator[int]:
    """Numbers of batches after which to check: 2, 4, 6, 9, 14, 21, ... and the limit."""
    point = 2
    while point < limit:
        yield point
        point = max(point + 2, math.ceil(point * GROWTH))
    yield limit


class ConvergenceCheck:
    """Compares two bases on batches that neither has seen.

    The error of a basis falls like 1/n with the batches n behind it, so what the newer basis gains over the older
    one, on fresh data, also tells how much is still to be gained.

    Args:
        old, new: subspaces per layer; their groups are measured once.
        moments: per group, for its mean and the type of its products.
        ranks: how many components of each layer count.
    """

    def __init__(
        self,
        old: dict[str, LayerSubspace],
        new: dict[str, LayerSubspace],
        moments: Mapping[str, Moments],
        ranks: dict[str, int],
    ):
        self.new, self.ranks = new, ranks
        self.bases: dict[str, Tensor] = {}  # (in, 2k), the old components and the new ones
        self.offsets: dict[str, Tensor] = {}  # (2k,) what rows at the mean project to
        self.energies: dict[str, Tensor] = {}  # (1 + 2k,) count of rows, then squares per component
        for name, group in moments.items():
            basis = torch.cat([old[name].components, new[name].components]).T.to(group.operands).contiguous()
            self.bases[name], self.offsets[name] = basis, group.mean() @ basis.float()
            self.energies[name] = torch.zeros(1 + basis.shape[1], dtype=torch.float64, device=basis.device)

    def add(self, leader: str, rows: Tensor) -> None:
        """Measure shifted rows, (n, in), in the type of the moments' products."""
        energies = self.energies[leader]
        energies[0] += len(rows)
        energies[1:] += (rows @ self.bases[leader]).float().sub_(self.offsets[leader]).square_().sum(0)

    def gain(self) -> float | None:
        """Share of the captured variance that the newer basis adds, summed over layers as shares of their variance."""
        collective.sum_over_processes(list(self.energies.values()))
        old = new = 0.0
        for name, subspace in self.new.items():
            count, *parts = self.energies[subspace.group].tolist()
            k, rank = len(parts) // 2, self.ranks[name]
            if total := count * subspace.total_variance:
                old += sum(parts[:rank]) / total
                new += sum(parts[k : k + rank]) / total
        return 1 - old / new if new > 0 else None
