"""EVA (Paischer et al., arXiv:2410.07170) as a method of the suite, with its variants and controls."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from eva_bench.eva import directions
from eva_bench.eva.engine import compute_subspaces
from eva_bench.eva.ranks import redistribute_ranks
from eva_bench.eva.subspace import EvaResult, LayerSubspace
from eva_bench.methods.base import Initialisation, Method, layer_generator, method_config, target_layers
from eva_bench.methods.layer import Factors
from eva_bench.models.linear import weight_matrix
from eva_bench.system.progress import Bar, warn


@method_config
class EVA(Method):
    """A from the directions in which the inputs of a layer vary most, B = 0, ranks shared out by variance.

    `directions` says what becomes of them: `leading` is EVA; `whitened`, `rotated`, `permuted` and `minor` are the
    paper's ablations; `random` keeps only EVA's ranks. `solver` to `second_pass` are explained at
    `eva_bench.eva.compute_subspaces`, `rho` and `score` at `redistribute_ranks`. alpha / r is the same on every layer.
    """

    rank: int
    alpha: float
    rho: float
    score: Literal["ratio", "raw", "max", "paper"]
    directions: Literal["leading", "whitened", "rotated", "permuted", "minor", "random"]
    center: bool
    label_mask: bool
    solver: Literal["auto", "exact", "sketch", "incremental"]
    tolerance: float
    tau: float
    min_batches: int
    max_batches: int
    columns: int | None
    second_pass: bool
    autocast: Literal["auto"] | bool
    uses_data = True

    def initialise(self, bundle, calibration, seed):
        layers = target_layers(bundle, self.rank)
        share_out = partial(redistribute_ranks, rank=self.rank, rho=self.rho, score=self.score)
        bar = Bar("calibration batches", quiet_s=2.0)
        result = compute_subspaces(
            bundle.module,
            list(layers),
            calibration,
            components={name: self._components(weight_matrix(layer).shape) for name, layer in layers.items()},
            solver="exact" if self.directions == "minor" else self.solver,
            center=self.center,
            tolerance=self.tolerance,
            tau=self.tau,
            min_batches=self.min_batches,
            max_batches=self.max_batches,
            columns=self.columns,
            second_pass=self.second_pass,
            ranks=share_out,
            row_mask=bundle.row_mask,
            use_label_mask=self.label_mask,
            autocast=self.autocast,
            seed=seed,
            progress=lambda batches, gap: bar(batches, self.max_batches, "" if gap is None else f"gap {gap:.4f}"),
        )
        bar.close()
        if result.stopped == "cap" and not result.converged:
            warn(f"EVA had not settled after {result.batches} batches (max_batches); the record says so")
        factors = {}
        for index, (name, rank) in enumerate(share_out(result.layers).items()):
            if rank > 0:
                A = self._start(result.layers[name], rank, layer_generator(seed, index))
                out_width = weight_matrix(layers[name]).shape[0]
                factors[name] = Factors(A, torch.zeros(out_width, rank), scale=self.alpha / self.rank)
        return Initialisation(factors=factors, facts=facts(result))

    def _components(self, shape: tuple[int, int]) -> int:
        """How many components a layer (out, in) may need; the least ones are known only with all others."""
        return shape[1] if self.directions == "minor" else min(round(self.rank * self.rho), *shape)

    def _start(self, subspace: LayerSubspace, rank: int, generator: torch.Generator) -> Tensor:
        """A, (rank, in)."""
        if self.directions == "random":
            return directions.kaiming(rank, subspace.components.shape[1], generator)
        make: Callable = getattr(directions, self.directions)
        if self.directions in ("rotated", "permuted"):
            return make(subspace, rank, generator)
        return make(subspace, rank)


@method_config
class EVADoRA(EVA):
    """EVA's start for DoRA: trained row norms beside A and B, which start at those of the weight.

    A layer with a row of zeros (the padding row of a tied head) cannot be normalised and is left unadapted.
    """

    trained = ("A", "B", "magnitude")

    def initialise(self, bundle, calibration, seed):
        start = super().initialise(bundle, calibration, seed)
        factors = {}
        for name, plain in start.factors.items():
            norms = weight_matrix(bundle.module.get_submodule(name)).detach().float().norm(dim=1)  # (out,)
            if (norms == 0).any():
                warn(f"layer '{name}' has a row of zeros, which DoRA cannot normalise: it is left unadapted")
                continue
            factors[name] = replace(plain, magnitude=norms)
        return Initialisation(factors=factors, facts=start.facts)


@method_config
class OrthonormalLoRA(Method):
    """LoRA with random orthonormal rows in A: as large as EVA's, in no particular direction."""

    rank: int
    alpha: float

    def initialise(self, bundle, calibration, seed):
        factors = {}
        for index, (name, layer) in enumerate(target_layers(bundle, self.rank).items()):
            out_width, in_width = weight_matrix(layer).shape
            A = directions.orthonormal(self.rank, in_width, layer_generator(seed, index))
            factors[name] = Factors(A, torch.zeros(out_width, self.rank), scale=self.alpha / self.rank)
        return Initialisation(factors=factors)


@method_config
class InitB(Method):
    """LoRA the other way round: A = 0, B random with entries N(0, 1/rank) (Init[B] of arXiv:2406.08447)."""

    rank: int
    alpha: float

    def initialise(self, bundle, calibration, seed):
        factors = {}
        for index, (name, layer) in enumerate(target_layers(bundle, self.rank).items()):
            out_width, in_width = weight_matrix(layer).shape
            B = torch.randn(out_width, self.rank, generator=layer_generator(seed, index)) / math.sqrt(self.rank)
            factors[name] = Factors(torch.zeros(self.rank, in_width), B, scale=self.alpha / self.rank)
        return Initialisation(factors=factors)


def facts(result: EvaResult) -> dict:
    """What the record keeps of an initialisation."""
    names = ("solver", "batches", "rows", "seconds", "peak_bytes", "converged", "gap", "stopped", "explained_variance")
    return {name: getattr(result, name) for name in names}
