"""The largest eigenvalue of the Hessian of the loss by the trained parameters (Lanczos, Hessian-vector products)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from eva_bench.methods.base import Method
from eva_bench.methods.layer import Adapter
from eva_bench.probes.result import Findings
from eva_bench.probes.subjects import Subject
from eva_bench.probes.workbench import TRAIN_EXAMPLES, Workbench
from eva_bench.settings.build import build
from eva_bench.settings.spec import stream_seed
from eva_bench.system.arguments import Arguments
from eva_bench.task import Calibration

ITERATIONS = 40
TOLERANCE = 1e-3  # of the eigenvalue, relative


@dataclass(frozen=True)
class Eigenvalues:
    """The ends of a symmetric operator's spectrum.

    Attributes:
        largest, smallest: Ritz values.
        residual: an upper bound of the distance from `largest` to an eigenvalue.
        iterations: products that were computed.
    """

    largest: float
    smallest: float
    residual: float
    iterations: int


def hessian_ends(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor], seed: int,
    iterations: int = ITERATIONS, tolerance: float = TOLERANCE,
) -> Eigenvalues:  # fmt: skip
    """Largest and smallest eigenvalue of the Hessian by the parameters, as they are.

    Args:
        loss: computes the mean loss on fixed data; twice differentiable.
        parameters: leaves that require gradients.
        seed: of the first vector.
    """
    sizes = [parameter.numel() for parameter in parameters]
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
        gradient = torch.autograd.grad(loss(), parameters, create_graph=True)

        def product(vector: Tensor) -> Tensor:
            pieces = [piece.view_as(p).to(p) for piece, p in zip(vector.split(sizes), parameters, strict=True)]
            rows = torch.autograd.grad(gradient, parameters, pieces, retain_graph=True, materialize_grads=True)
            return torch.cat([row.flatten() for row in rows]).double()

        return lanczos(product, sum(sizes), seed, iterations, tolerance, parameters[0].device)


def lanczos(
    product: Callable[[Tensor], Tensor], size: int, seed: int,
    iterations: int = ITERATIONS, tolerance: float = TOLERANCE, device: torch.device | str = "cpu",
) -> Eigenvalues:  # fmt: skip
    """Ends of the spectrum of a symmetric operator on float64 vectors (size,), with full re-orthogonalisation."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(size, generator=generator, dtype=torch.float64).to(device)
    basis = [vector / vector.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(1, min(iterations, size) + 1):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        known = torch.stack(basis)  # (step, size)
        for _ in range(2):  # once more removes what rounding left
            image = image - known.T @ (known @ image)
        norm = float(image.norm())
        values, vectors = _ritz(diagonal, beside)
        residual = norm * abs(float(vectors[-1, -1]))
        if residual <= tolerance * abs(float(values[-1])) or step == min(iterations, size):
            break
        beside.append(norm)
        basis.append(image / norm)
    return Eigenvalues(float(values[-1]), float(values[0]), residual, step)


class Options(Arguments):
    """Settings of the probe.

    Attributes:
        examples: training examples that the loss is the mean of.
        iterations, tolerance: of Lanczos.
    """

    examples: int = TRAIN_EXAMPLES
    iterations: int = ITERATIONS
    tolerance: float = TOLERANCE


def probe(subject: Subject, options: Options) -> Findings:
    """Curvature at the initialisation of a run, by the parameters of its adapter (full fine-tuning: by all)."""
    bench = Workbench(subject)
    spec = bench.spec
    method, seed = build(spec.method, Method), stream_seed(spec.seed, "calibration_order")
    calibration = Calibration(bench.task, bench.bundle, bench.train().examples, spec.calibration, seed)
    adapter = method.attach(bench.bundle, calibration, stream_seed(spec.seed, "initialisation"))
    examples = [calibration.examples[i] for i in calibration.order[: options.examples]]
    found = hessian_ends(
        lambda: bench.differentiable(examples), _parameters(adapter), seed, options.iterations, options.tolerance
    )
    summary = {"largest": found.largest, "smallest": found.smallest, "residual": found.residual, "lr": spec.train.lr}
    return Findings(summary=summary | {"iterations": found.iterations, "examples": len(examples)})


def _parameters(adapter: Adapter) -> list[Tensor]:
    """What is trained in the adapted layers: a head and biases, which all methods share, are left out."""
    inside = [
        p for layer in adapter.layers.values() for p in (layer.A, layer.B, layer.s, layer.magnitude) if p is not None
    ]
    return [p for p in inside if p.requires_grad] or list(adapter.trained().values())


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of the tridiagonal matrix."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors
