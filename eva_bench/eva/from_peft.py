"""What PEFT's configuration and functions mean for the engine."""

from collections.abc import Callable, Mapping
from typing import Any

from peft import EvaConfig, LoraConfig
from peft.tuners.lora.eva import (
    prepare_layer_inputs_fn_language_modeling,
    prepare_model_inputs_fn_language_modeling,
)
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eva_bench.eva.config import SolverConfig
from eva_bench.eva.errors import EvaError
from eva_bench.eva.reader import SelectRows
from eva_bench.models.batches import IGNORED_LABEL

PEFT_TAU = 0.99  # the default of EvaConfig; our tolerances belong to it
LARGE_RHO = 1000  # above it PEFT means: as many components as the model's widest side allows

Prepare = Callable[[Any, Any, str], Tensor]


def config_for(eva: EvaConfig) -> SolverConfig:
    """Our options for PEFT's EvaConfig: a tau nearer to 1 makes the tolerances smaller in proportion."""
    default = SolverConfig()
    stricter = (1 - eva.tau) / (1 - PEFT_TAU)
    return SolverConfig(
        use_label_mask=eva.use_label_mask,
        tau=eva.tau,
        tolerance=default.tolerance * stricter,
        layer_tolerance=default.layer_tolerance * stricter,
    )


def bounded_rho(eva: EvaConfig, rank: int, model: nn.Module) -> float:
    """The configuration's rho; one that means "no bound", at most the model's widest side over the rank."""
    if eva.rho <= LARGE_RHO:
        return float(eva.rho)
    return min(eva.rho, max(max(p.shape, default=1) for p in model.parameters()) // rank)


def component_counts(layers: Mapping[str, nn.Module], most: int) -> dict[str, int]:
    """How many components each layer can have, at most `most`: no more than its shorter side."""
    return {name: min(most, *_shape(getattr(layer, "base_layer", layer))) for name, layer in layers.items()}


def _shape(layer: Any) -> tuple[int, int]:
    rows, columns = layer.weight.shape if isinstance(layer, Conv1D) else (layer.out_features, layer.in_features)
    return rows, columns


def linear_targets(model: nn.Module, lora: LoraConfig) -> dict[str, nn.Module]:
    """The linear layers of a plain model that the configuration names."""
    layers: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
        and (lora.target_modules is None or check_target_module_exists(lora, name))
    }
    if not layers:
        raise EvaError(f"no linear layer of the model is among the target_modules {lora.target_modules}")
    return layers


def rows_selector(
    prepare_inputs: Callable[[Any, LoraConfig], Any] | None,
    prepare_rows: Prepare | Mapping[str, Prepare] | None,
    lora: LoraConfig,
    layers: list[str],
) -> SelectRows | None:
    """The user's two functions as one of ours; None where they are PEFT's own, which the engine's masks equal.

    Raises:
        EvaError: functions by layer name a layer that is not adapted.
    """
    eva = lora.eva_config or EvaConfig()
    if (
        prepare_inputs is prepare_model_inputs_fn_language_modeling
        and prepare_rows is prepare_layer_inputs_fn_language_modeling
        and (not eva.use_label_mask or eva.label_mask_value == IGNORED_LABEL)
    ):
        return None
    if isinstance(prepare_rows, Mapping) and (unknown := set(prepare_rows) - set(layers)):
        raise EvaError(f"prepare_layer_inputs_fn names '{sorted(unknown)[0]}', which is no adapted layer")

    def select(batch: Any) -> Callable[[str, Tensor], Tensor]:
        model_input = prepare_inputs(batch, lora) if prepare_inputs else batch

        def rows(name: str, x: Tensor) -> Tensor:
            prepare = prepare_rows.get(name) if isinstance(prepare_rows, Mapping) else prepare_rows
            return prepare((x,), model_input, name) if prepare else x.reshape(-1, x.shape[-1])

        return rows

    return select
