"""Causal language models as bundles."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from eva_bench.assets.identity import model_folder
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import is_adaptable
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.errors import UserError


def load(
    model: ModelSettings, data: DataSettings, device: torch.device | str = "cpu", outputs: None = None
) -> ModelBundle:
    """Load model and tokenizer from a local folder; never touches the network.

    Raises:
        UserError: broken checkpoint, or target layers that match nothing.
    """
    folder = model_folder(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        module, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise UserError(f"The checkpoint '{folder.name}' cannot be loaded: {_first_line(error)}") from error
    if missing := sorted(loading["missing_keys"]):
        raise UserError(f"The checkpoint '{folder.name}' has no weights for {', '.join(missing[:3])}: it is incomplete.")
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UserError(f"The tokenizer of '{folder.name}' is empty: its files are incomplete.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of '{folder.name}' has neither a pad nor an end-of-sequence token.")
    module.eval().to(device)
    origin = {"parameters": sum(p.numel() for p in module.parameters()), "dtype": model.dtype}
    return ModelBundle(module, tokenizer, find_targets(module, model.targets), "language", origin=origin)


def skeleton(model: ModelSettings, data: DataSettings, outputs: None = None) -> ModelBundle:
    """The model without weights (meta device): enough to check targets and ranks before loading gigabytes."""
    folder = model_folder(model)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise UserError(f"The checkpoint '{folder.name}' cannot be read: {_first_line(error)}") from error
    return ModelBundle(module, None, find_targets(module, model.targets), "language")


def save(bundle: ModelBundle, folder: Path) -> None:
    """Model and tokenizer as a Hugging Face checkpoint."""
    bundle.module.save_pretrained(folder)
    bundle.processor.save_pretrained(folder)


def find_targets(module: nn.Module, endings: list[str], outside: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the linear layers whose last parts are one of `endings`, in module order.

    Indices in names do not count: `layer.output.dense` is `layer.0.output.dense` and its like, and not
    `layer.0.attention.output.dense`.

    Args:
        outside: modules whose layers are never targets, such as a head that is trained in full.

    Raises:
        UserError: an ending matches no adaptable layer; names the ones that exist.
    """
    linear = [name for name, layer in module.named_modules() if is_adaptable(layer)]
    linear = [name for name in linear if not any(f"{name}.".startswith(f"{part}.") for part in outside)]
    plain = {name: "." + ".".join(part for part in name.split(".") if not part.isdigit()) for name in linear}
    matches = {ending: [name for name in linear if plain[name].endswith(f".{ending}")] for ending in endings}
    last = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
    if unmatched := [ending for ending, names in matches.items() if not names]:
        raise UserError(f"model.targets: {', '.join(unmatched)} matches no linear layer of the model; it has {last}.")
    if not endings:
        raise UserError(f"model.targets is empty; the model has {last}.")
    return tuple(name for name in linear if any(name in names for names in matches.values()))


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
