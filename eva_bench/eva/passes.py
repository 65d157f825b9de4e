"""All second moments of a large model: too many to be held at once, so they are taken of some layers at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from eva_bench.eva.subspace import EvaResult

MOMENTS_BYTES = 16e9  # at once, on the device: leaves room for the weights of a 9B model on one of 80 GB
BYTES = 28  # of one second moment: float64 sums of all batches and of the last one, eigenvectors in float64 and float32


def passes(widths: Mapping[str, int], most: float = MOMENTS_BYTES) -> Iterator[list[str]]:
    """Layers in order, in as few parts as their exact second moments allow.

    Args:
        widths: number of inputs by name of the layer.
        most: bytes of the moments of a part; a layer that needs more is a part of its own.

    Yields:
        Names of neighbours.
    """
    part: list[str] = []
    held = 0
    for name, width in widths.items():
        needed = BYTES * width**2
        if part and held + needed > most:
            yield part
            part, held = [], 0
        part.append(name)
        held += needed
    yield part


def last_components(result: EvaResult, count: int) -> EvaResult:
    """A result with the last `count` components of each layer, and every eigenvalue."""
    layers = {
        name: replace(layer, components=layer.components[-count:].clone()) for name, layer in result.layers.items()
    }
    return replace(result, layers=layers)


def joined(results: Sequence[EvaResult]) -> EvaResult:
    """One result of passes over the same batches, each for other layers."""
    first = results[0]
    return replace(
        first,
        layers={name: layer for result in results for name, layer in result.layers.items()},
        explained_variance={name: share for result in results for name, share in result.explained_variance.items()},
        batches=max(result.batches for result in results),
        rows=max(result.rows for result in results),
        seconds=sum(result.seconds for result in results),
        peak_bytes=max(result.peak_bytes for result in results),
        converged=all(result.converged for result in results),
        gap=max((result.gap for result in results if result.gap is not None), default=None),
    )
