"""The paper's own solver: incremental SVD, stopped when no component turns any more."""

from typing import Any

import torch
from torch import Tensor

from eva_bench.eva.errors import EvaError
from eva_bench.eva.moments import Spectrum
from eva_bench.eva.solver import Solver
from eva_bench.eva.subspace import EvaResult
from eva_bench.methods.svd import truncated_svd


class IncrementalSVD:
    """Centred truncated SVD, updated batch by batch, in float64.

    Each update decomposes the stack of the previous components times their singular values, the centred batch and
    one row for the shift of the mean. What falls behind the kept components is forgotten, so unlike the other
    statistics the result depends a little on the order and size of the batches.
    Source: Ross et al. 2008; EVA algorithm 2 and scikit-learn's IncrementalPCA, which this equals.

    Args:
        components: how many are kept.
        tau: a component has converged when its cosine with itself before the update reaches this.
        method: of `truncated_svd`; `randomised` is what the paper and PEFT do.
        center: subtract the running mean.
    """

    def __init__(self, components: int, tau: float, *, center: bool = True, method: str = "randomised", seed: int = 0):
        self.k, self.tau, self.center, self.method, self.seed = components, tau, center, method, seed
        self.rows = 0
        self.mean = self.components = self.singular_values = torch.empty(0, dtype=torch.float64)
        self.square_sum = 0.0  # of centred rows
        self.converged = torch.zeros(components, dtype=torch.bool)

    def update(self, rows: Tensor) -> None:
        """Take in a batch of at least k rows, (n, in)."""
        rows = rows.double()
        batch_mean = rows.mean(0) if self.center else torch.zeros_like(rows[0])
        stack = rows - batch_mean
        self.square_sum += float(stack.square().sum())
        total = self.rows + len(rows)
        if self.rows:
            turn = (self.rows * len(rows) / total) ** 0.5 * (self.mean - batch_mean)  # (in,)
            self.square_sum += float(turn.square().sum())
            stack = torch.cat([self.singular_values[:, None] * self.components, stack, turn[None]])
            self.mean = self.mean + (batch_mean - self.mean) * (len(rows) / total)
        else:
            self.mean = batch_mean
        _, self.singular_values, components = truncated_svd(stack, self.k, method=self.method, seed=self.seed)
        if self.rows:
            self.converged = ((components * self.components).sum(1) >= self.tau).cpu()
        self.components, self.rows = components, total

    def spectrum(self) -> Spectrum:
        """Eigenpairs of everything seen so far."""
        divisor = max(self.rows - 1, 1) if self.center else self.rows
        return Spectrum(self.components, self.singular_values.square() / divisor, self.square_sum / divisor, self.rows)


class IncrementalSolver(Solver):
    """Solver `incremental`: goes round the batches until every component in use has converged.

    A layer whose components have all converged is left out until ranks move back to it. Batches with fewer rows than
    components are skipped for a layer, as in PEFT.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.processes.count > 1:
            raise EvaError("solver 'incremental' depends on the order of all rows and works in one process only")
        self.solvers: dict[str, IncrementalSVD] = {}
        self.resting: set[str] = set()

    def take(self, leader: str, rows: Tensor) -> None:
        if not torch.isfinite(rows).all():
            raise EvaError(f"the inputs of layer '{leader}' contain NaN or infinite values")
        if not len(rows):
            return
        if leader not in self.solvers:
            k, config = self.components(leader), self.config
            self.solvers[leader] = IncrementalSVD(k, config.tau, center=config.center, seed=self.seed)
        if leader not in self.resting and len(rows) >= self.solvers[leader].k:
            self.solvers[leader].update(rows)

    def result(self) -> EvaResult:
        batches = 0
        while batches < self.config.max_batches:
            if not self.read():
                self.reader.restart()
                if not self.read():
                    raise EvaError(f"the loader of batches {'can be read only once' if batches else 'is empty'}")
            batches += 1
            self.check_targets()
            if self._all_converged():
                self.converged, self.stopped = True, "tolerance"
                break
        spectra = {name: solver.spectrum() for name, solver in self.solvers.items() if solver.rows}
        unready = [name for name in self.solvers if name not in spectra]
        if unready and not self.skip_starved:
            raise EvaError(f"no batch held as many rows for layer '{unready[0]}' as it has components")
        return self.present(spectra, batches, "incremental")

    def _all_converged(self) -> bool:
        """Whether all components that the ranks select have converged; notes which layers may rest."""
        if not self.solvers or not all(solver.rows for solver in self.solvers.values()):
            return False
        ranks = self.used_ranks(self.subspaces({name: s.spectrum() for name, s in self.solvers.items()}))
        needed = dict.fromkeys(self.solvers, 0)
        for name, rank in ranks.items():
            leader = self.tap.groups[name]
            needed[leader] = max(needed[leader], rank)
        self.resting = {name for name, rank in needed.items() if self.solvers[name].converged[:rank].all()}
        return len(self.resting) == len(self.solvers)
