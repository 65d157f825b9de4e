"""Reading and writing the LoRA layers of a PEFT model."""

import warnings
from copy import copy
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from eva_bench.eva.errors import EvaError
from eva_bench.eva.experts import parameter_layers, write_experts
from eva_bench.eva.inputs import input_width

PREFIX = "base_model.model."
WRITTEN = "_eva_rank_patterns"  # attribute of a model: by adapter, the ranks that EVA gave


def as_peft_model(model: nn.Module) -> PeftModel:
    """The model, known to be PEFT's.

    Raises:
        EvaError: it comes from elsewhere than `get_peft_model`.
    """
    if not isinstance(model, PeftModel):
        raise EvaError("model must be a PeftModel: make one with get_peft_model")
    return model


def lora_config(model: nn.Module, adapter_name: str) -> LoraConfig:
    """The configuration of an adapter.

    Raises:
        EvaError: the model comes from elsewhere than `get_peft_model`, or has no such LoRA adapter.
    """
    configs: Any = as_peft_model(model).peft_config
    if adapter_name not in configs:
        raise EvaError(f"the model has no adapter '{adapter_name}'; it has {', '.join(configs)}")
    config = configs[adapter_name]
    if not isinstance(config, LoraConfig):
        raise EvaError(f"adapter '{adapter_name}' is a {type(config).__name__}; EVA initialises LoRA")
    return config


def lora_layers(model: nn.Module, adapter_name: str) -> dict[str, nn.Module]:
    """The LoRA layers of an adapter on Linear and Conv1D modules, by name.

    Raises:
        EvaError: there is none, and no layer on experts either.
    """
    layers = {name: layer for name, layer in _all_lora_layers(model, adapter_name).items() if _is_linear(name, layer)}
    if not layers and not any(parameter_layers(model, adapter_name)):
        raise EvaError(f"the model has no LoRA layer named '{adapter_name}' on a Linear or Conv1D")
    return layers


def refuse_own_ranks(model: nn.Module, lora: LoraConfig, adapter_name: str) -> None:
    """Ranks that EVA wrote on an earlier call may be replaced, and those of experts stay; a user's are refused.

    Raises:
        EvaError: a rank_pattern that is not EVA's.
    """
    written = getattr(model, WRITTEN, {}).get(adapter_name)
    own = set(lora.rank_pattern or {}) - set(_of_parameters(lora.rank_pattern, model, adapter_name))
    if own and lora.rank_pattern != written:
        raise EvaError("this model has a rank_pattern; EVA shares out the ranks itself: remove it from the LoraConfig")


@torch.no_grad()
def write_factors(model: nn.Module, rows: dict[str, Tensor], adapter_name: str, adjust_scaling: bool) -> None:
    """Put rows into A and zeros into B, resize and free layers, and enter it in the configuration.

    LoRA layers without an entry keep their random initialisation, with a warning.

    Args:
        model: the PEFT model; changed in place.
        rows: A of each layer or expert, (rank, in), by name; rank 0 takes the adapter off.
        adapter_name: of the adapter.
        adjust_scaling: keep every layer's scale although its rank changes; else alpha stays.

    Raises:
        EvaError: rows of another width than the layer's.
    """
    config: Any = lora_config(model, adapter_name)
    layers = _all_lora_layers(model, adapter_name)
    patterns: dict[str, dict[str, Any]] = {
        "rank": _of_parameters(config.rank_pattern, model, adapter_name),
        "alpha": _of_parameters(config.alpha_pattern, model, adapter_name),
    }
    kept, left = [], []
    for name, layer in layers.items():
        short = name.removeprefix(PREFIX)
        A = rows.get(name)
        if A is not None and len(A) == 0:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
            continue
        _resize(layer, adapter_name, A, config, adjust_scaling)
        if isinstance(layer, ParamWrapper):
            if count := write_experts(name, layer, adapter_name, rows):
                left.append(f"'{name}', {count} of {layer.num_experts} experts")
            continue
        kept.append(short)
        if A is None:
            left.append(f"'{name}'")
        rank, alpha = layer.r[adapter_name], layer.lora_alpha[adapter_name]
        if rank != config.r:
            patterns["rank"][short] = rank
        if alpha != config.lora_alpha:
            patterns["alpha"][short] = alpha
    config.rank_pattern, config.alpha_pattern = patterns["rank"], patterns["alpha"]
    setattr(model, WRITTEN, {adapter_name: dict(patterns["rank"])})
    if len(kept) < sum(not isinstance(layer, ParamWrapper) for layer in layers.values()):
        config.target_modules = sorted(kept)
    if left:
        warnings.warn(
            f"{len(left)} LoRA layers keep their random initialisation, for example {left[0]}: they are no linear "
            "layers, or received too few rows (an expert that was seldom chosen)",
            stacklevel=3,
        )


def _resize(layer: Any, adapter_name: str, A: Tensor | None, config: Any, adjust_scaling: bool) -> None:
    """Give a layer its new rank and rows; without rows, only what low_cpu_mem_usage left on the meta device."""
    factors = layer.lora_A if adapter_name in layer.lora_A else layer.lora_embedding_A
    old = factors[adapter_name]
    old = old.weight if isinstance(old, nn.Module) else old
    rank = layer.r[adapter_name] if A is None else len(A)
    alpha, scaling = layer.lora_alpha[adapter_name], layer.scaling[adapter_name]
    if rank != layer.r[adapter_name] or old.is_meta:
        if adjust_scaling:
            alpha = scaling * (rank**0.5 if config.use_rslora else rank)
        plain = _plain_initialisation(config)
        layer.update_layer(adapter_name=adapter_name, r=rank, lora_alpha=alpha, config=plain)
        for part in (layer.lora_A, layer.lora_B):
            if adapter_name in part:
                part[adapter_name].to(old.dtype)
    if A is None:
        return
    weight = layer.lora_A[adapter_name].weight
    if A.shape[1] != weight.shape[1]:
        raise EvaError(f"rows of width {A.shape[1]} do not fit a layer with {weight.shape[1]} inputs")
    weight.copy_(A)
    layer.lora_B[adapter_name].weight.zero_()


def _plain_initialisation(config: Any) -> Any:
    """The configuration with LoRA's own initialisation, which does not look at the data."""
    plain = copy(config)
    plain.init_lora_weights = True
    return plain


def _all_lora_layers(model: nn.Module, adapter_name: str) -> dict[str, Any]:
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer) and adapter_name in m.r}


def _of_parameters(pattern: dict[str, Any] | None, model: nn.Module, adapter_name: str) -> dict[str, Any]:
    """What a pattern of ranks or alphas says of layers on parameters."""
    names = [f"{name}.{layer.parameter_name}" for name, layer in parameter_layers(model, adapter_name)]
    names = [name.removeprefix(PREFIX).replace(".base_layer", "") for name in names]
    found = {get_pattern_key(list(pattern or {}), name) for name in names}
    return {key: value for key, value in (pattern or {}).items() if key in found}


def _is_linear(name: str, layer: Any) -> bool:
    if isinstance(layer, ParamWrapper):
        return False
    try:
        input_width(name, layer)
    except EvaError:
        return False
    return len(layer.lora_A) > 0  # an embedding keeps its factors elsewhere
