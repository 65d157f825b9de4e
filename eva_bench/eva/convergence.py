"""How far the directions are from those of endless data, and after how many batches they are near enough.

The moments of a layer differ from batch to batch. From how much they differ follows how far the leading eigenvectors
of their mean may be turned against the true ones, and what that costs in captured variance. Nothing is projected or
read a second time for it, and after a handful of batches the estimate tells how many more are needed.
Source: first-order perturbation of eigenvectors with the sample covariance of the batches (Anderson 1963, "Asymptotic
theory for principal component analysis"), every pair of directions bounded by what a rotation can lose.
"""

import torch
from torch import Tensor

from eva_bench.eva.moments import BatchMoments, Moments, Spectrum

ENOUGH_BATCHES = 24  # of a process: what they vary is known by then, and collecting it is not free


class BatchVariation:
    """How much a layer's second moments vary between batches, along its leading directions.

    Collects, over batches, the squares of `G = Uᵀ C_b V / rows`, where C_b are a batch's centred moments, V its leading
    directions and U all of them; what lies outside the leading ones is kept as one sum per direction. A new basis
    starts a new collection; the collections before count in proportion to their batches.

    Args:
        columns: how many leading directions are watched.
    """

    def __init__(self, columns: int, device: torch.device):
        self.columns = columns
        self.recent = torch.zeros(2 + columns * (columns + 1), dtype=torch.float64, device=device)
        self.variance = torch.zeros_like(self.recent)  # the same sums over all earlier bases
        self.basis: Tensor | None = None
        self.collected = 0  # batches, by this process

    def renew(self, spectrum: Spectrum, moments: Moments) -> None:
        """Watch the leading directions of everything absorbed so far."""
        self.variance += self.recent
        self.recent.zero_()
        self.basis = spectrum.components[: self.columns].T.float().contiguous()  # (in, q)
        self.mean = moments.mean().float()  # (in,)
        self.mean_low = self.mean @ self.basis  # (q,)
        self.exact = moments.columns == moments.width

    def add(self, batch: BatchMoments) -> None:
        """Take in the sums of one batch."""
        if self.basis is None or not batch.count or self.collected >= ENOUGH_BATCHES:
            return
        self.collected += 1
        products = batch.matrix.float()
        if self.exact:
            products = products @ self.basis  # (in, q); a sketch's test matrix is the basis already
        sum_low = batch.row_sum @ self.basis
        products = products - torch.outer(batch.row_sum, self.mean_low)
        products -= torch.outer(self.mean, sum_low - batch.count * self.mean_low)
        inside = self.basis.T @ products  # (q, q)
        squares = inside.square()
        outside = (products.square().sum(0) - squares.sum(0)).clamp_min(0)  # (q,)
        self.recent[0] += 1
        self.recent[1] += batch.count
        self.recent[2:] += torch.cat([squares.flatten(), outside])

    def gap(self, spectrum: Spectrum, rank: int, batches: float) -> float | None:
        """Share of the variance within the first `rank` directions that endless data would add.

        Args:
            spectrum: of everything absorbed.
            rank: how many directions count.
            batches: how many batches it was made of.

        Returns:
            None as long as fewer than two batches were compared with a basis.
        """
        sums = self.variance + self.recent
        count, rows = sums[:2].tolist()
        values = spectrum.eigenvalues[: self.columns]
        captured = float(values[:rank].sum())
        if count < 2:
            return None
        if captured <= 0:
            return 0.0
        squares = sums[2:] / count / (rows / count) ** 2 / batches
        inside = squares[: self.columns**2].view(self.columns, self.columns)[rank:, :rank]
        distance = values[None, :rank] - values[rank:, None]  # between eigenvalues, (q - rank, rank)
        width = spectrum.components.shape[1]
        rest = max(spectrum.total_variance - float(values.sum()), 0.0) / max(width - self.columns, 1)
        outside = squares[self.columns**2 :][:rank] / (values[:rank] - rest).clamp_min(1e-12 * captured)
        return float((rotation_loss(inside, distance).sum() + outside.sum()) / captured)


def rotation_loss(squares: Tensor, distance: Tensor) -> Tensor:
    """Variance lost when a mixed moment δ turns two directions whose eigenvalues are `distance` apart, from δ².

    Exact for two dimensions: δ²/distance where δ is small, never more than half the distance.
    """
    return distance / 2 * (1 - (1 + 4 * squares / distance.square().clamp_min(1e-300)).rsqrt())
