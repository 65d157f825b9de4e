"""Intruder dimensions: leading singular vectors of the tuned weight that no singular vector of the base resembles.

Source: Shuttleworth et al., arXiv:2410.21228, definition 3.1 and algorithm 1. As in their code, left singular vectors
and absolute cosines. Some base vector always has a cosine of at least 1/sqrt(out) with a vector in their span, so a
threshold below that finds intruders only outside the span.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eva_bench.models.linear import weight_matrix
from eva_bench.probes.result import Findings, Summary
from eva_bench.probes.subjects import Subject
from eva_bench.probes.trained import Layer, install
from eva_bench.probes.workbench import Workbench
from eva_bench.system.arguments import Arguments

TOP = 10  # the paper's k and epsilon
EPSILON = 0.5
EPSILONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)  # lambda


def similarities(layer: Layer, top: int = TOP) -> Tensor:
    """For each of the leading left singular vectors of the tuned weight, its best match in the base.

    Args:
        top: k, at most min(out, in).

    Returns:
        Largest absolute cosine with any left singular vector of the base, (k,), in order of the singular values.
    """
    return _similarities(_left(layer.base), _left(layer.tuned)[:, :top])


def count(similarity: Tensor, epsilon: float = EPSILON) -> int:
    """How many of the vectors are intruders: no base vector comes as near as epsilon."""
    return int((similarity < epsilon).sum())


def sweep(similarity: Tensor, tops: Sequence[int], epsilons: Sequence[float]) -> dict[str, int]:
    """Counts by `k=<k> epsilon=<epsilon>`, from one set of similarities."""
    return {f"k={k} epsilon={e:g}": count(similarity[:k], e) for k in tops for e in epsilons}


def mitigated(layer: Layer, factor: float, top: int = TOP, epsilon: float = EPSILON) -> Tensor:
    """The tuned weight with its top intruder scaled: W0 + update + (factor - 1) u s v^T.

    Args:
        factor: lambda; 1 changes nothing, 0 takes the intruder out.

    Returns:
        (out, in); the tuned weight itself where there is no intruder.
    """
    tuned = layer.tuned
    U, S, V = torch.linalg.svd(tuned, full_matrices=False)  # (out, m), (m,), (m, in)
    found = (_similarities(_left(layer.base), U[:, :top]) < epsilon).nonzero()
    if not len(found):
        return tuned
    first = int(found[0])
    return tuned + (factor - 1) * S[first] * torch.outer(U[:, first], V[first])


class Options(Arguments):
    """Settings of the probe.

    Attributes:
        k, epsilon: as in the paper; counts for other values are reported beside.
        mitigation: of runs, also scale the top intruder by every factor and measure loss and forgetting.
    """

    k: int = TOP
    epsilon: float = EPSILON
    mitigation: bool = False


def probe(subject: Subject, options: Options) -> Findings:
    """Intruders per layer; with mitigation, what scaling the top ones does to the task and to forgetting."""
    found = {name: similarities(layer, options.k) for name, layer in subject.layers()}
    total: Summary = {"intruders": sum(count(row, options.epsilon) for row in found.values())}
    total |= {"vectors": sum(len(row) for row in found.values()), "layers": len(found)}
    for name in sweep(next(iter(found.values())), (1, options.k), EPSILONS):
        total[name] = sum(sweep(row, (1, options.k), EPSILONS)[name] for row in found.values())
    layers = {
        name: {"intruders": count(row, options.epsilon), "similarity": row.tolist()} for name, row in found.items()
    }
    return Findings(summary=total | (_mitigation(subject, options) if options.mitigation else {}), layers=layers)


def _mitigation(subject: Subject, options: Options) -> Summary:
    bench, module = Workbench(subject), subject.bundle.module
    touched = {
        name: {factor: mitigated(layer, factor, options.k, options.epsilon) for factor in FACTORS}
        for name, layer in subject.layers()
    }
    install(module, subject.trained)
    measured = {}
    for factor in FACTORS:
        _set_weights(module, {name: weights[factor] for name, weights in touched.items()})
        values = {"loss": bench.loss()} | bench.forgetting()
        measured |= {f"lambda={factor:g} {name}": value for name, value in values.items()}
    return measured


@torch.no_grad()
def _set_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight_matrix(module.get_submodule(name)).copy_(weight)


def _left(matrix: Tensor) -> Tensor:
    return torch.linalg.svd(matrix, full_matrices=False).U


def _similarities(base: Tensor, tuned: Tensor) -> Tensor:
    return (base.T @ tuned).abs().amax(0)
