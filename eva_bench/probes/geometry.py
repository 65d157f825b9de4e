"""How large an update is, how many directions it has, and whose directions they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy.stats import spearmanr
from torch import Tensor

from eva_bench.eva.engine import compute_subspaces
from eva_bench.probes.result import Findings, mean_of
from eva_bench.probes.subjects import Subject
from eva_bench.probes.trained import Layer
from eva_bench.probes.workbench import Workbench
from eva_bench.settings.spec import stream_seed
from eva_bench.system.arguments import Arguments
from eva_bench.task import Calibration

FULL_RANK = 8  # of the subspaces that a fully trained layer is compared with


def stable_rank(matrix: Tensor) -> float:
    """||W||_F^2 / ||W||_2^2: 1 for rank one, min(out, in) where all singular values are equal, 0 for a zero matrix."""
    return stable_rank_of(torch.linalg.svdvals(matrix))


def stable_rank_of(singular_values: Tensor) -> float:
    """The same from the singular values, descending."""
    largest = float(singular_values[0])
    return float((singular_values / largest).square().sum()) if largest > 0 else 0.0


def size(layer: Layer) -> dict[str, float]:
    """Frobenius and spectral norm of the update over those of the base, and the update's stable rank."""
    base, update = torch.linalg.svdvals(layer.base), torch.linalg.svdvals(layer.update)
    return {
        "frobenius": float(update.norm() / base.norm()),
        "spectral": float(update[0] / base[0]),
        "stable_rank": stable_rank_of(update),
    }


def share_within(update: Tensor, left: Tensor | None, right: Tensor | None) -> float:
    """The share of the squared Frobenius norm of an update that lies in a subspace; 0 for a zero update.

    Args:
        update: (out, in).
        left: orthonormal columns (out, r) of outputs, or None for all.
        right: orthonormal rows (r, in) of inputs, or None for all.
    """
    part = update if left is None else left.T @ update
    part = part if right is None else part @ right.T
    return float((part.norm() / update.norm()).square()) if update.any() else 0.0


def shares(layer: Layer, rank: int, components: Tensor | None = None) -> dict[str, float]:
    """Shares of the update in the subspaces that initialisations choose, beside what chance gives.

    PiSSA adapts the leading `rank` singular directions of the base on both sides, MiLoRA the last ones, EVA the leading
    directions of the layer's inputs.

    Args:
        components: EVA's orthonormal rows, (at least rank, in), if known.
    """
    U, _, V = torch.linalg.svd(layer.base, full_matrices=False)
    update, (out_width, in_width) = layer.update, layer.base.shape
    found = {
        "pissa": share_within(update, U[:, :rank], V[:rank]),
        "pissa_out": share_within(update, U[:, :rank], None),
        "pissa_in": share_within(update, None, V[:rank]),
        "milora": share_within(update, U[:, -rank:], V[-rank:]),
        "milora_out": share_within(update, U[:, -rank:], None),
        "milora_in": share_within(update, None, V[-rank:]),
        "chance_out": rank / out_width,
        "chance_in": rank / in_width,
        "chance": rank / out_width * rank / in_width,
    }
    return found if components is None else found | {"eva_in": share_within(update, None, components[:rank])}


def where(updates: Mapping[str, Tensor]) -> dict[str, float]:
    """Each layer's share of the squared Frobenius norm of all updates together."""
    squares = {name: float(update.double().square().sum()) for name, update in updates.items()}
    total = sum(squares.values())
    return {name: square / total if total else 0.0 for name, square in squares.items()}


class Options(Arguments):
    """Settings of the probe.

    Attributes:
        rank: of the subspaces; None: the adapter's own, `FULL_RANK` for layers that were trained whole.
    """

    rank: int | None = None


def probe(subject: Subject, options: Options) -> Findings:
    """Size, shares and place of every update; of runs, also EVA's subspaces of the task's inputs."""
    found = dict(subject.layers())
    ranks = {name: _rank(layer, options) for name, layer in found.items()}
    inputs = _inputs(subject, ranks) if subject.spec is not None else {}
    places = where({name: layer.update for name, layer in found.items()})
    layers = {}
    for name, layer in found.items():
        components, explained = inputs.get(name, (None, None))
        row = size(layer) | shares(layer, ranks[name], components)
        row |= {"place": places[name], "rank": ranks[name]}
        layers[name] = row if explained is None else row | {"explained": explained}
    names = [
        "frobenius",
        "spectral",
        "stable_rank",
        "pissa",
        "pissa_in",
        "pissa_out",
        "milora",
        "milora_in",
        "milora_out",
    ]
    total = mean_of(layers, *names, "chance_in", "chance_out", "chance", *(["eva_in"] if inputs else []))
    if inputs and len(layers) > 2:
        columns = [[row[name] for row in layers.values()] for name in ("place", "explained")]
        total["place_and_explained_spearman"] = float(spearmanr(*columns).statistic)
    return Findings(summary=total, layers=layers)


def _rank(layer: Layer, options: Options) -> int:
    return min(options.rank or layer.rank or FULL_RANK, *layer.base.shape)


def _inputs(subject: Subject, ranks: dict[str, int]) -> dict[str, tuple[Tensor, float]]:
    """EVA's components of every layer's input, (rank, in), and the share of the variance that they explain."""
    bench = Workbench(subject)
    spec = bench.spec
    seed = stream_seed(spec.seed, "calibration_order")
    batches = Calibration(bench.task, bench.bundle, bench.train().examples, spec.calibration, seed)
    result = compute_subspaces(
        bench.bundle.module, list(ranks), batches, components=ranks, row_mask=bench.bundle.row_mask, seed=seed
    )
    return {
        name: (layer.components, float(layer.eigenvalues.sum() / layer.total_variance))
        for name, layer in result.layers.items()
    }
