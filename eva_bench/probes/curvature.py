"""The largest eigenvalue of the Hessian of the loss by the trained parameters (Lanczos, Hessian-vector products)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of the tridiagonal matrix."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors
