"""EVA's directions at LoRA's size, and random directions at EVA's: controls that separate direction from size."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from baselines.lora import kaiming
from eva_bench.eva.method import EVA
from eva_bench.methods.base import Initialisation, layer_generator, method_config
from eva_bench.models.bundle import ModelBundle


@method_config
class EVAScaled(EVA):
    """EVA with every row of A rescaled to the norm of the row that LoRA draws there."""

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """EVA's directions and ranks, LoRA's row norms; see `Method.initialise`."""
        eva = super().initialise(bundle, calibration, seed)
        factors = {}
        for index, name in enumerate(bundle.targets):
            if name in eva.factors:
                A = eva.factors[name].A
                norms = kaiming(len(A), A.shape[1], layer_generator(seed, index)).norm(dim=1, keepdim=True).to(A.device)
                factors[name] = replace(eva.factors[name], A=A * norms / A.norm(dim=1, keepdim=True))
        return replace(eva, factors=factors)


@method_config
class LoRAEvaNorms(EVA):
    """LoRA's random A at EVA's ranks, rescaled in each layer to the Frobenius norm of EVA's A."""

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """Random directions, EVA's ranks and norms; see `Method.initialise`."""
        eva = super().initialise(bundle, calibration, seed)
        factors = {}
        for index, name in enumerate(bundle.targets):
            if name in eva.factors:
                A = eva.factors[name].A
                drawn = kaiming(len(A), A.shape[1], layer_generator(seed, index)).to(A.device)
                factors[name] = replace(eva.factors[name], A=drawn * A.norm() / drawn.norm())
        return replace(eva, factors=factors)
