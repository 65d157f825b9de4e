"""The library door: EVA for any PEFT LoRA model, without the rest of the suite."""

from functools import partial

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from eva_bench.eva.config import SolverConfig
from eva_bench.eva.engine import compute_subspaces
from eva_bench.eva.errors import EvaError
from eva_bench.eva.ranks import redistribute_ranks
from eva_bench.eva.reader import Batches
from eva_bench.eva.subspace import EvaResult


def initialize_eva(
    peft_model: nn.Module,
    batches: Batches,
    *,
    rho: float = 2.0,
    score: str = "ratio",
    adapter_name: str = "default",
    config: SolverConfig | None = None,
) -> EvaResult:
    """Start the LoRA layers of a PEFT model from the directions in which their inputs vary most.

    Writes A, sets B to zero, resizes layers to the redistributed ranks with alpha / rank unchanged, takes the adapter
    off layers of rank 0, and enters all of it in the PEFT configuration, so that saving and loading work as usual.

    Args:
        peft_model: from `get_peft_model` with a LoraConfig of one rank; changed in place.
        batches: what the model is called with, see `compute_subspaces`; dicts of tensors as from a DataLoader.
        rho: a layer may get up to round(r * rho); 1 keeps all ranks.
        score: how components compete for ranks, see `redistribute_ranks`.
        config: how the subspaces are computed (tolerance, max_batches, solver, use_label_mask, ...).

    Returns:
        The subspaces and how they were found.

    Raises:
        EvaError: no LoRA layer on a Linear or Conv1D, a rank_pattern is set already, or what `compute_subspaces` finds.
    """
    lora = peft_model.peft_config[adapter_name]
    if lora.rank_pattern:
        raise EvaError("this model has a rank_pattern; EVA shares out the ranks itself: remove it from the LoraConfig")
    layers = _lora_layers(peft_model, adapter_name)
    most = round(lora.r * rho)
    widths = {name: min(layer.in_features, layer.out_features) for name, layer in layers.items()}
    share_out = partial(redistribute_ranks, rank=lora.r, rho=rho, score=score)
    with peft_model.disable_adapter():
        result = compute_subspaces(
            peft_model,
            list(layers),
            batches,
            components={name: min(most, width) for name, width in widths.items()},
            ranks=share_out,
            config=config,
        )
    _write(peft_model, adapter_name, layers, share_out(result.layers), result)
    return result


def _lora_layers(peft_model: nn.Module, adapter_name: str) -> dict[str, nn.Module]:
    from peft.tuners.lora import LoraLayer

    layers = {
        name: module
        for name, module in peft_model.named_modules()
        if isinstance(module, LoraLayer)
        and adapter_name in module.lora_A
        and isinstance(module.get_base_layer(), (nn.Linear, Conv1D))
    }
    if not layers:
        raise EvaError(f"the model has no LoRA layer named '{adapter_name}' on a Linear or Conv1D")
    return layers


@torch.no_grad()
def _write(peft_model, adapter_name: str, layers: dict[str, nn.Module], ranks: dict[str, int], result) -> None:
    """Put the start into the layers and the outcome into the configuration."""
    config = peft_model.peft_config[adapter_name]
    prefix = "base_model.model."
    adapted = []
    for name, layer in layers.items():
        short, rank = name.removeprefix(prefix), ranks[name]
        if rank == 0:
            parent, _, child = name.rpartition(".")
            setattr(peft_model.get_submodule(parent), child, layer.get_base_layer())
            continue
        adapted.append(short)
        alpha = layer.lora_alpha[adapter_name]
        if rank != config.r:
            alpha = alpha * rank / config.r
            config.rank_pattern[short], config.alpha_pattern[short] = rank, alpha
        if rank != config.r or layer.lora_A[adapter_name].weight.is_meta:
            layer.update_layer(adapter_name=adapter_name, r=rank, lora_alpha=alpha, config=config)
        layer.lora_A[adapter_name].weight.copy_(result.layers[name].components[:rank])
        layer.lora_B[adapter_name].weight.zero_()
    if len(adapted) < len(layers):
        others = [
            n.removeprefix(prefix) for n, m in peft_model.named_modules() if _is_other_lora(m, adapter_name, layers)
        ]
        config.target_modules = sorted(adapted + others)


def _is_other_lora(module: nn.Module, adapter_name: str, layers: dict[str, nn.Module]) -> bool:
    """LoRA layers that EVA does not serve (embeddings, convolutions) stay targets."""
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer) and module not in layers.values() and adapter_name in module.r
