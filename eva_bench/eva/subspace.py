"""What the engine returns."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class LayerSubspace:
    """The leading directions of the inputs of one layer.

    Attributes:
        components: (k, in) float32, orthonormal rows, descending eigenvalue; the largest entry of each is positive.
        eigenvalues: (k,) float32, variance along each component (raw second moment if uncentred).
        total_variance: the same, summed over all directions.
        rows: how many rows were counted.
        group: the first layer that receives the same input; layers of one group share their components.
    """

    components: Tensor
    eigenvalues: Tensor
    total_variance: float
    rows: int
    group: str

    @property
    def explained_variance(self) -> float:
        """Share of the total variance within the components."""
        return self.share(len(self.eigenvalues))

    def share(self, rank: int) -> float:
        """Share of the total variance within the first `rank` components."""
        return float(self.eigenvalues[:rank].sum()) / self.total_variance if self.total_variance > 0 else 0.0


@dataclass(frozen=True)
class EvaResult:
    """Subspaces of all target layers and how they came about.

    Attributes:
        layers: in the order of the targets.
        batches, rows: how many were read; rows is the largest count of any layer.
        seconds: wall clock of the whole computation, forward passes included.
        peak_bytes: highest memory of the GPU during the computation, or of the process where there is none.
        converged: whether `gap` came down to the tolerance (or, solver `incremental`, all cosines up to tau).
        solver: `exact`, `sketch`, `exact+sketch` or `incremental`.
        explained_variance: per layer, the share captured by its k components.
        gap: estimated share of the explainable variance that more batches would add; None if it was never measured.
        stopped: why it ended: `tolerance`, `data` (the loader ended) or `cap` (max_batches).
        skipped: layers that received fewer rows than they need components, with that number.
    """

    layers: dict[str, LayerSubspace]
    batches: int
    rows: int
    seconds: float
    peak_bytes: int
    converged: bool
    solver: str
    explained_variance: dict[str, float]
    gap: float | None
    stopped: str
    skipped: dict[str, int] = field(default_factory=dict)
