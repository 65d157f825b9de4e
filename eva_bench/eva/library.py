"""EVA for any PEFT LoRA model, without the rest of the suite: one function of ours and the two that PEFT has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import nullcontext
from functools import partial
from typing import Any

from peft import EvaConfig, LoraConfig
from peft.tuners.lora.eva import (
    forward_fn_dict,
    prepare_layer_inputs_fn_language_modeling,
    prepare_model_inputs_fn_language_modeling,
)
from torch import Tensor, nn
from tqdm import tqdm

from eva_bench.eva.config import SolverConfig
from eva_bench.eva.engine import compute_subspaces
from eva_bench.eva.errors import EvaError
from eva_bench.eva.experts import FusedExperts
from eva_bench.eva.from_peft import (
    Prepare,
    bounded_rho,
    component_counts,
    config_for,
    linear_targets,
    rows_selector,
)
from eva_bench.eva.ranks import redistribute_ranks
from eva_bench.eva.reader import Batches, Progress
from eva_bench.eva.subspace import EvaResult, LayerSubspace
from eva_bench.eva.write_lora import as_peft_model, lora_config, lora_layers, refuse_own_ranks, write_factors


def initialize_eva(
    peft_model: nn.Module,
    batches: Batches | None = None,
    *,
    result: EvaResult | None = None,
    rho: float | None = None,
    score: str = "ratio",
    adapter_name: str = "default",
    config: SolverConfig | None = None,
    progress: Progress | None = None,
) -> EvaResult:
    """Initialise the LoRA layers of a PEFT model with the directions in which their inputs vary most.

    Writes A, sets B to zero, resizes layers to the redistributed ranks at an unchanged scale, takes the adapter off
    layers of rank 0, and enters all of it in the PEFT configuration, so that saving and loading work as usual.

    Args:
        peft_model: from `get_peft_model` with a LoraConfig of one rank; changed in place.
        batches: what the model is called with, see `compute_subspaces`; dicts of tensors as from a DataLoader.
        result: of an earlier call on the same model, instead of batches.
        rho: a layer may get up to round(r * rho); 1 keeps all ranks; None: that of the LoraConfig's EvaConfig, else 2.
        score: how components compete for ranks, see `redistribute_ranks`.
        adapter_name: of the adapter to initialise.
        config: how the subspaces are computed; None: the defaults, and `use_label_mask` of the EvaConfig.
        progress: called with the batches read so far and the last estimate of the gap.

    Returns:
        The subspaces and how they were found.

    Raises:
        EvaError: no PEFT model, no LoRA layer on a linear one, ranks set already, or what `compute_subspaces` finds.
    """
    lora = lora_config(peft_model, adapter_name)
    refuse_own_ranks(peft_model, lora, adapter_name)
    eva = lora.eva_config
    rho = rho if rho is not None else eva.rho if eva else 2.0
    config = config or SolverConfig(use_label_mask=bool(eva and eva.use_label_mask))
    layers = lora_layers(peft_model, adapter_name)
    experts = FusedExperts(peft_model, adapter_name, config.use_label_mask)
    share_out = partial(_share_out, experts.ranks, rank=lora.r, rho=rho, score=score)
    if result is None:
        if batches is None:
            raise EvaError("give batches to read, or the result of an earlier call")
        with as_peft_model(peft_model).disable_adapter(), experts:
            result = compute_subspaces(
                peft_model,
                [*layers, *experts.ranks],
                batches,
                components=component_counts(layers, round(lora.r * rho)) | experts.ranks,
                config=config,
                ranks=share_out,
                forward=experts.forward(None),
                skip_starved=True,
                progress=progress,
            )
    if unknown := [name for name in result.layers if name not in layers and name not in experts.ranks]:
        raise EvaError(f"the result has a layer '{unknown[0]}' that this model's adapter '{adapter_name}' lacks")
    ranks = share_out(result.layers)
    rows = {name: result.layers[name].components[:rank] for name, rank in ranks.items()}
    write_factors(peft_model, rows, adapter_name, adjust_scaling=True)
    return result


def get_eva_state_dict(
    model: nn.Module,
    dataloader: Iterable[Any],
    peft_config: LoraConfig | None = None,
    forward_fn: Callable[[nn.Module, Any], Any] | None = forward_fn_dict,
    prepare_model_inputs_fn: Callable[[Any, LoraConfig], Any] | None = prepare_model_inputs_fn_language_modeling,
    prepare_layer_inputs_fn: Prepare | dict[str, Prepare] | None = prepare_layer_inputs_fn_language_modeling,
    adapter_name: str = "default",
    gather_distributed_inputs: bool = True,
    show_progress_bar: bool = True,
    *,
    config: SolverConfig | None = None,
) -> dict[str, Tensor]:
    """PEFT's function of this name, computed by our solver: the rows of A for every layer at its new rank.

    Args:
        model: a PEFT model, or a plain one together with `peft_config`.
        dataloader: of the batches.
        peft_config: for a plain model.
        forward_fn: runs the model on a batch; the default leaves labels away and ends after the last adapted layer.
        prepare_model_inputs_fn: maps a batch and the configuration to what the next function gets as `model_input`.
        prepare_layer_inputs_fn: maps layer input, model input and layer name to rows; one for all layers or by name.
        adapter_name: of a PEFT model's adapter.
        gather_distributed_inputs: with torch.distributed, all processes work on one result.
        show_progress_bar: count the batches.
        config: overrides what follows from the EvaConfig.

    Returns:
        Rows of A, (rank, in), by layer name, ranks of 0 included; those of expert i as `<layer>.expert.<i>`.

    Raises:
        EvaError: also a ValueError; nothing to read, no configuration, no layer, or what `compute_subspaces` finds.
    """
    if hasattr(model, "peft_config"):
        lora = peft_config or lora_config(model, adapter_name)
        refuse_own_ranks(model, lora, adapter_name)
        layers = lora_layers(model, adapter_name)
    elif peft_config is None:
        raise EvaError("peft_config is required if model is not a PeftModel")
    else:
        lora, layers = peft_config, linear_targets(model, peft_config)
    eva = lora.eva_config or EvaConfig()
    if isinstance(dataloader, Sized) and len(dataloader) == 0:
        raise EvaError("dataloader is empty")
    select_rows = rows_selector(prepare_model_inputs_fn, prepare_layer_inputs_fn, lora, list(layers))
    config = config or config_for(eva)
    experts = None  # own functions for rows know nothing of them
    if hasattr(model, "peft_config") and select_rows is None:
        experts = FusedExperts(model, adapter_name, config.use_label_mask)
    forward = None if forward_fn in (None, forward_fn_dict) else forward_fn
    ranks = experts.ranks if experts else {}
    rho = bounded_rho(eva, lora.r, model)
    share_out = partial(_share_out, ranks, rank=lora.r, rho=rho)
    adapters_off = as_peft_model(model).disable_adapter() if hasattr(model, "peft_config") else nullcontext()
    bars = tqdm(disable=not show_progress_bar, leave=False, unit=" batches")
    with adapters_off, experts or nullcontext(), bars as bar:
        result = compute_subspaces(
            model,
            [*layers, *ranks],
            dataloader,
            components=component_counts(layers, round(lora.r * rho)) | ranks,
            config=config,
            ranks=share_out,
            forward=experts.forward(forward) if experts else forward,
            select_rows=select_rows,
            share_inputs=select_rows is None,
            together=gather_distributed_inputs,
            skip_starved=True,
            progress=lambda batches, gap: _show(bar, batches, gap),
        )
    state = {}
    for name, rank in share_out(result.layers).items():
        layer = result.layers[name]
        rows = layer.components[:rank]
        if eva.whiten:  # PEFT's definition: over the roots of the singular values
            rows = rows / (layer.eigenvalues[:rank] * max(layer.rows - 1, 1)).sqrt().sqrt()[:, None]
        state[name] = rows
    return state


def initialize_lora_eva_weights(
    model: nn.Module,
    dataloader: Iterable[Any] | None = None,
    eva_state_dict: dict[str, Tensor] | None = None,
    forward_fn: Callable[[nn.Module, Any], Any] | None = forward_fn_dict,
    prepare_model_inputs_fn: Callable[[Any, LoraConfig], Any] | None = prepare_model_inputs_fn_language_modeling,
    prepare_layer_inputs_fn: Prepare | dict[str, Prepare] | None = prepare_layer_inputs_fn_language_modeling,
    adapter_name: str = "default",
    gather_distributed_inputs: bool = True,
    show_progress_bar: bool = True,
    *,
    config: SolverConfig | None = None,
) -> None:
    """PEFT's function of this name: initialise the LoRA layers of a model with `init_lora_weights="eva"`.

    Args:
        model: the PEFT model; changed in place.
        dataloader: of the batches, unless there is a state.
        eva_state_dict: from `get_eva_state_dict`, here or in PEFT; left as it is.
        forward_fn: see `get_eva_state_dict`, like all that follow.
        prepare_model_inputs_fn: as there.
        prepare_layer_inputs_fn: as there.
        adapter_name: as there.
        gather_distributed_inputs: as there.
        show_progress_bar: as there.
        config: as there.

    Raises:
        EvaError: also a ValueError; the model does not fit, or what `get_eva_state_dict` finds.
    """
    lora = lora_config(model, adapter_name)
    if len(as_peft_model(model).active_adapters) > 1:
        raise EvaError("`initialize_lora_eva_weights` currently only works with a single active adapter")
    if lora.init_lora_weights != "eva":
        raise EvaError("`initialize_lora_eva_weights` can only be used with `init_lora_weights='eva'`")
    if eva_state_dict is None:
        if dataloader is None:
            raise EvaError("dataloader is required if eva_state_dict is not provided")
        eva_state_dict = get_eva_state_dict(
            model,
            dataloader,
            forward_fn=forward_fn,
            prepare_model_inputs_fn=prepare_model_inputs_fn,
            prepare_layer_inputs_fn=prepare_layer_inputs_fn,
            adapter_name=adapter_name,
            gather_distributed_inputs=gather_distributed_inputs,
            show_progress_bar=show_progress_bar,
            config=config,
        )
    write_factors(
        model, eva_state_dict, adapter_name, adjust_scaling=(lora.eva_config or EvaConfig()).adjust_scaling_factors
    )


def _share_out(
    fixed: Mapping[str, int], subspaces: Mapping[str, LayerSubspace], *, rank: int, rho: float, score: str = "ratio"
) -> dict[str, int]:
    """Ranks of all layers: those of experts are fixed, the others share a budget of their own."""
    free = {name: subspace for name, subspace in subspaces.items() if name not in fixed}
    return redistribute_ranks(free, rank=rank, rho=rho, score=score) | {
        name: fixed[name] for name in subspaces if name in fixed
    }


def _show(bar: Any, batches: int, gap: float | None) -> None:
    bar.update(batches - bar.n)
    if gap is not None:
        bar.set_postfix(gap=f"{gap:.4f}")
