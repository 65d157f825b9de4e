"""What every solver shares: what it was asked for, and how its outcome is presented."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from eva_bench.eva import collective
from eva_bench.eva.config import SolverConfig
from eva_bench.eva.errors import EvaError
from eva_bench.eva.moments import Spectrum
from eva_bench.eva.reader import BatchReader, Progress
from eva_bench.eva.subspace import EvaResult, LayerSubspace

ShareOut = Callable[[dict[str, LayerSubspace]], dict[str, int]]


class Solver(ABC):
    """Reads batches; subclasses decide what to remember and when to stop.

    Args:
        reader: of the batches.
        counts: how many components each layer needs.
        config: options of the engine.
        ranks: maps subspaces to the ranks that will be used; None: every component is used.
        seed: of random test matrices.
        progress: called with the batches read so far and the last estimate of the gap.
        processes: that read batches of their own for the same result; None: all of torch.distributed.
        skip_starved: leave out layers that receive fewer rows than they need components, instead of refusing.
    """

    def __init__(
        self,
        reader: BatchReader,
        counts: dict[str, int],
        config: SolverConfig,
        *,
        ranks: ShareOut | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        processes: collective.Processes | None = None,
        skip_starved: bool = False,
    ):
        self.reader, self.counts, self.config = reader, counts, config
        self.ranks, self.seed, self.progress = ranks, seed, progress
        self.tap, self.device = reader.tap, reader.device
        self.processes = processes or collective.Processes()
        self.skip_starved = skip_starved
        self.started = time.perf_counter()
        self.gap: float | None = None
        self.converged = False
        self.stopped = "cap"

    @abstractmethod
    def take(self, leader: str, rows: Tensor) -> None:
        """Remember the rows (n, in) that the group of this layer received."""

    @abstractmethod
    def result(self) -> EvaResult:
        """Read until it is enough."""

    def read(self) -> bool:
        """Read one batch; False if there was none left."""
        if not self.reader.read(self.take):
            return False
        if self.progress:
            self.progress(self.reader.count, self.gap)
        return True

    def components(self, leader: str) -> int:
        """How many components the group of this layer needs."""
        return max(self.counts[name] for name, group in self.tap.groups.items() if group == leader)

    def subspaces(self, spectra: dict[str, Spectrum]) -> dict[str, LayerSubspace]:
        """Per layer, the components it asked for, with a defined sign."""
        layers = {}
        for name, count in self.counts.items():
            leader = self.tap.groups.get(name, name)
            if leader not in spectra:
                continue
            spectrum = spectra[leader]
            rows = spectrum.components[:count]
            signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
            layers[name] = LayerSubspace(
                components=(rows * signs).float(),
                eigenvalues=spectrum.eigenvalues[:count].float(),
                total_variance=spectrum.total_variance,
                rows=spectrum.rows,
                group=leader,
            )
        return layers

    def used_ranks(self, layers: dict[str, LayerSubspace]) -> dict[str, int]:
        """How many components of each layer have to be right."""
        return self.ranks(layers) if self.ranks else self.counts

    def check_targets(self) -> None:
        """Refuse to go on without a target.

        Raises:
            EvaError: a target layer did not run, and starved layers are not skipped.
        """
        missing = self.tap.missing()
        if missing and not self.skip_starved:
            raise EvaError(f"layer '{missing[0]}' never ran in the forward pass ({len(missing)} such targets)")

    def present(self, spectra: dict[str, Spectrum], batches: int, solver: str) -> EvaResult:
        """Put everything into the result.

        Raises:
            EvaError: a layer received fewer rows than it needs components.
        """
        if not spectra:
            raise EvaError(
                "no position counts: all are masked out, by the attention mask or by labels that are all -100"
            )
        layers = self.subspaces(spectra)
        received = {name: layers[name].rows if name in layers else 0 for name in self.counts}
        skipped = {name: rows for name, rows in received.items() if rows < self.counts[name]}
        layers = {name: layer for name, layer in layers.items() if name not in skipped}
        if skipped and not (self.skip_starved and layers):
            name, rows = next(iter(skipped.items()))
            raise EvaError(f"layer '{name}' received {rows} rows, fewer than its {self.counts[name]} components")
        return EvaResult(
            layers=layers,
            batches=batches,
            rows=max(layer.rows for layer in layers.values()),
            seconds=time.perf_counter() - self.started,
            peak_bytes=collective.peak_bytes(self.device),
            converged=self.converged,
            solver=solver,
            explained_variance={name: layer.explained_variance for name, layer in layers.items()},
            gap=self.gap,
            stopped=self.stopped,
            skipped=skipped,
        )
