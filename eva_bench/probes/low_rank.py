"""How low the rank of weights and of gradients is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from eva_bench.methods.svd import normalised_spectrum
from eva_bench.probes.geometry import stable_rank_of
from eva_bench.probes.result import Findings, mean_of
from eva_bench.probes.subjects import Subject
from eva_bench.probes.trained import install
from eva_bench.probes.workbench import TRAIN_EXAMPLES, Workbench
from eva_bench.system.arguments import Arguments
from eva_bench.system.errors import UserError

# WeLore (arXiv:2407.11239): thresholds on normalised singular values, by the share of the model that is to go.
WELORE = {0.1: 0.065, 0.2: 0.084, 0.3: 0.115, 0.4: 0.145, 0.5: 0.175, 0.6: 0.215, 0.7: 0.26}
ENERGY = 0.9


def profile(matrix: Tensor, threshold: float = WELORE[0.5]) -> dict[str, float]:
    """Rank measures of one matrix.

    Args:
        threshold: of singular values brought to 0..1; those from it on count, as in the authors' code.

    Returns:
        welore: how many singular values count; share: that over min(out, in); stable_rank; energy_rank: how many
        leading components hold 90 % of the squared Frobenius norm.
    """
    S = torch.linalg.svdvals(matrix)
    counted = int((normalised_spectrum(S) >= threshold).sum())
    return {
        "welore": counted,
        "share": counted / len(S),
        "stable_rank": stable_rank_of(S),
        "energy_rank": energy_rank(S),
    }


def energy_rank(singular_values: Tensor, energy: float = ENERGY) -> int:
    """The least number of leading components with so much of the squared norm; 0 for a zero matrix."""
    squares = singular_values.double().square().cumsum(0)
    return int((squares < energy * squares[-1]).sum()) + 1 if squares[-1] > 0 else 0


def low_rank_layers(ranks: Mapping[str, float], limit: float = 0.5) -> tuple[str, ...]:
    """The layers WeLore replaces and trains: those that keep at most about half of their rank.

    Args:
        ranks: `share` of `profile` per layer.
    """
    return tuple(name for name, share in ranks.items() if share <= limit)


def gradients(module: nn.Module, names: tuple[str, ...], loss: Callable[[], Tensor]) -> dict[str, dict[str, float]]:
    """Rank measures of the gradient of the loss by whole weight matrices (GaLore, arXiv:2403.03507).

    Args:
        names: layers of the model, which must be differentiable.
        loss: computes the loss on fixed data with the model as it is.
    """
    weights = [module.get_submodule(name).weight for name in names]
    trained = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        found = torch.autograd.grad(loss(), weights)
    finally:
        for weight, was in zip(weights, trained, strict=True):
            weight.requires_grad_(was)
    measures = {}
    for name, gradient in zip(names, found, strict=True):
        S = torch.linalg.svdvals(gradient.float())
        measures[name] = {"stable_rank": stable_rank_of(S), "energy_rank": energy_rank(S), "norm": float(S.norm())}
    return measures


class Options(Arguments):
    """Settings of the probe.

    Attributes:
        reduction: the share of the model that WeLore would take away, a key of WELORE.
    """

    reduction: float = 0.5


def probe(subject: Subject, options: Options) -> Findings:
    """Rank measures of base, tuned weight and update; of runs, also of the gradient before and after training."""
    if options.reduction not in WELORE:
        raise UserError(f"reduction={options.reduction:g} is not one of {', '.join(map(str, WELORE))}.")
    threshold, layers = WELORE[options.reduction], {}
    for name, layer in subject.layers():
        parts = {"base": layer.base, "tuned": layer.tuned, "update": layer.update}
        profiles = {part: profile(matrix, threshold) for part, matrix in parts.items()}
        layers[name] = {f"{part}_{key}": value for part, row in profiles.items() for key, value in row.items()}
    if subject.spec is not None:
        bench, names = Workbench(subject), tuple(layers)
        examples = list(islice(bench.train().examples, TRAIN_EXAMPLES))
        for when in ("before", "after"):
            if when == "after":
                install(bench.bundle.module, subject.trained)
            for name, row in gradients(bench.bundle.module, names, lambda: bench.differentiable(examples)).items():
                layers[name] |= {f"gradient_{when}_{key}": value for key, value in row.items()}
    total = mean_of(layers, *next(iter(layers.values())))
    low = low_rank_layers({name: row["base_share"] for name, row in layers.items()})
    return Findings(summary=total | {"low_rank_layers": len(low), "layers": len(layers)}, layers=layers)
