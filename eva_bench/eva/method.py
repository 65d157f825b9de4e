"""EVA (Paischer et al., arXiv:2410.07170) as a method of the suite, with its variants."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from eva_bench.eva import directions
from eva_bench.eva.config import SolverConfig
from eva_bench.eva.engine import compute_subspaces
from eva_bench.eva.passes import joined, last_components, passes
from eva_bench.eva.ranks import redistribute_ranks
from eva_bench.eva.subspace import EvaResult, LayerSubspace
from eva_bench.methods.base import Initialisation, LowRankMethod, layer_generator, method_config, target_layers
from eva_bench.methods.layer import Factors
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.system.errors import UserError
from eva_bench.system.progress import Bar, warn

RECORDED = ("solver", "batches", "rows", "seconds", "peak_bytes", "converged", "gap", "stopped", "explained_variance")

MOST_RHO = 1e6  # beyond the width of any layer over any rank: larger values change nothing


@method_config
class EVA(LowRankMethod, SolverConfig):
    """A from the directions in which the inputs of a layer vary most, B = 0, ranks shared out by variance.

    Its options are those of the engine (`SolverConfig`), those of `redistribute_ranks` (`rho`, `score`) and
    `directions`: `leading` is EVA; `whitened`, `rotated`, `permuted` and `minor` are the paper's ablations; `random`
    keeps only EVA's ranks. The scale is the same on every layer.
    """

    rho: float
    score: Literal["ratio", "raw", "max", "paper"]
    directions: Literal["leading", "whitened", "rotated", "permuted", "minor", "random"]
    uses_data = True
    shares_batches = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rho <= MOST_RHO:
            raise UserError(f"method.rho={self.rho:g} must be between 1 and {MOST_RHO:g}.")
        if self.directions == "minor" and self.solver != "exact":
            raise UserError("method.directions=minor needs all second moments: add method.solver=exact.")

    def layer_rank(self, shape: tuple[int, int]) -> int | None:
        """The rank where it is not redistributed; see `Method.layer_rank`."""
        return self.rank if self.rho == 1 else None

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """Leading directions of every target layer's input, at redistributed ranks."""
        layers = target_layers(bundle, self.rank)
        share_out = partial(redistribute_ranks, rank=self.rank, rho=self.rho, score=self.score)
        with Bar("calibration batches", quiet_s=2.0) as bar:
            compute = partial(
                compute_subspaces,
                bundle.module,
                batches=calibration,
                config=self,
                ranks=share_out,
                row_mask=bundle.row_mask,
                seed=seed,
                progress=lambda batches, gap: bar(batches, self.max_batches, "" if gap is None else f"gap {gap:.4f}"),
            )
            counts = {name: self._components(weight_matrix(layer).shape) for name, layer in layers.items()}
            result = (
                self._lowest(compute, counts)
                if self.directions == "minor"
                else compute(targets=list(layers), components=counts)
            )
        if result.stopped == "cap" and not result.converged:
            warn(f"EVA had not converged after {result.batches} batches (max_batches); the record says so")
        factors = {}
        for index, (name, rank) in enumerate(share_out(result.layers).items()):
            if rank > 0:
                A = self._initial_rows(result.layers[name], rank, layer_generator(seed, index))
                out_width = weight_matrix(layers[name]).shape[0]
                factors[name] = Factors(A, torch.zeros(out_width, rank), scale=self.scale)
        return Initialisation(factors=factors, facts=facts(result))

    def _lowest(self, compute: Callable[..., EvaResult], counts: dict[str, int]) -> EvaResult:
        """The lowest-variance directions of layers with so many inputs, from as many passes as memory asks for."""
        most = round(self.rank * self.rho)
        parts = passes(counts)
        return joined([last_components(compute(targets=part, components=counts), most) for part in parts])

    def _components(self, shape: torch.Size) -> int:
        """How many components a layer (out, in) may need; the lowest-variance ones are known only with all others."""
        return shape[1] if self.directions == "minor" else min(round(self.rank * self.rho), *shape)

    def _initial_rows(self, subspace: LayerSubspace, rank: int, generator: torch.Generator) -> Tensor:
        """A, (rank, in)."""
        if self.directions == "random":
            return directions.kaiming(rank, subspace.components.shape[1], generator)
        make: Callable[..., Tensor] = getattr(directions, self.directions)
        if self.directions in ("rotated", "permuted"):
            return make(subspace, rank, generator)
        return make(subspace, rank)


def facts(result: EvaResult) -> dict[str, Any]:
    """What the record keeps of an initialisation."""
    return {name: getattr(result, name) for name in RECORDED}
