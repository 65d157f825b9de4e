"""How a fixed budget of ranks is shared out among the layers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from eva_bench.eva.errors import EvaError
from eva_bench.eva.subspace import LayerSubspace

SCORES = ("ratio", "raw", "max", "paper")


def component_scores(subspace: LayerSubspace, score: str) -> Tensor:
    """How much each component of a layer counts, (k,), descending.

    `ratio` is the share of the layer's total variance, `raw` the eigenvalue, `max` the eigenvalue over the layer's
    largest, `paper` equation 6: the eigenvalue over the sum of the computed singular values.
    Source: EVA section 3.5; `raw` and `max` appendix C.4; `ratio` is what the official code and PEFT use.
    """
    values = subspace.eigenvalues.double().cpu()
    if score == "ratio":
        scale = subspace.total_variance
    elif score == "raw":
        scale = 1.0
    elif score == "max":
        scale = float(values[0])
    elif score == "paper":
        scale = float((values * max(subspace.rows - 1, 1)).sqrt().sum())
    else:
        raise EvaError(f"unknown score {score!r}: choose one of {', '.join(SCORES)}")
    return values / scale if scale > 0 else torch.zeros_like(values)


def redistribute_ranks(
    subspaces: Mapping[str, LayerSubspace], *, rank: int, rho: float, score: str = "ratio"
) -> dict[str, int]:
    """Give each layer the number of its components that are among the best `len(subspaces) * rank` of all.

    No layer gets more than round(rank * rho); 0 is allowed; the sum is always the full budget. Ties go to the
    layer that comes first in `subspaces`, then to the leading component. `rho=1` gives every layer `rank`.
    Raises EvaError if rho < 1 or the layers have too few components to spend the budget.
    Source: EVA section 3.5.
    """
    if rho < 1 or rank < 1:
        raise EvaError(f"rank must be at least 1 and rho at least 1, got rank={rank}, rho={rho}")
    most, budget = round(rank * rho), len(subspaces) * rank
    ranked = [
        (-value, layer, index)
        for layer, subspace in enumerate(subspaces.values())
        for index, value in enumerate(component_scores(subspace, score)[:most].tolist())
    ]
    if len(ranked) < budget:
        shortest = min(subspaces, key=lambda name: len(subspaces[name].eigenvalues))
        raise EvaError(
            f"a budget of {budget} ranks cannot be spent: the layers have {len(ranked)} components within rho, "
            f"fewest '{shortest}' with {len(subspaces[shortest].eigenvalues)}; lower rank or raise rho"
        )
    counts = [0] * len(subspaces)
    for _, layer, _ in sorted(ranked)[:budget]:
        counts[layer] += 1
    return dict(zip(subspaces, counts, strict=True))
