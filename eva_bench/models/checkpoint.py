"""Local checkpoints in the hub's layout: read without running code that they bring, checked before they are used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from eva_bench.settings.schema import ModelSettings
from eva_bench.system.errors import UserError

# Nothing is downloaded, and no code of a checkpoint is ever run (its `auto_map`), whoever would answer a question.
SAFE = {"local_files_only": True, "trust_remote_code": False}


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint.

    Raises:
        UserError: it cannot be read, or knows no text.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **SAFE)
    except Exception as error:
        raise refusal(folder, error) from error
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UserError(f"The tokenizer of '{folder.name}' is empty: its files are incomplete.")
    return tokenizer


def read_model(auto: type, folder: Path, model: ModelSettings, **more: Any) -> tuple[PreTrainedModel, set[str]]:
    """A model with the weights of a checkpoint's safetensors files; other files are never read.

    Args:
        auto: transformers' class for the kind of model, such as `AutoModelForCausalLM`.
        folder: the checkpoint.
        model: its settings.
        more: of `from_pretrained`.

    Returns:
        (model, names of the parameters for which the checkpoint has no weights).

    Raises:
        UserError: broken files, more layers than the configuration says, or weights that are not finite.
    """
    try:
        module, loading = auto.from_pretrained(
            folder,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            use_safetensors=True,
            output_loading_info=True,
            **SAFE,
            **more,
        )
    except Exception as error:
        raise refusal(folder, error) from error
    refuse_more_layers(folder, module, loading["unexpected_keys"])
    refuse_infinite(folder, module)
    return module, set(loading["missing_keys"])


def read_skeleton(auto: type, folder: Path, **more: Any) -> PreTrainedModel:
    """A model of a checkpoint's configuration without weights, on the meta device.

    Args:
        auto: transformers' class for the kind of model.
        folder: the checkpoint.
        more: of the configuration.

    Raises:
        UserError: the configuration cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(folder, **SAFE, **more)
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise refusal(folder, error) from error


def refusal(folder: Path, error: Exception) -> UserError:
    """One sentence on why a checkpoint cannot be loaded."""
    if "trust_remote_code" in str(error):
        return UserError(f"The checkpoint '{folder.name}' brings code of its own (auto_map), which is never run.")
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return UserError(f"The checkpoint '{folder.name}' cannot be loaded: {reason}")


def refuse_missing(folder: Path, missing: set[str]) -> None:
    """Raise UserError if a checkpoint lacks weights."""
    if missing:
        named = ", ".join(sorted(missing)[:3])
        raise UserError(f"The checkpoint '{folder.name}' has no weights for {named}: it is incomplete.")


def refuse_more_layers(folder: Path, module: nn.Module, unexpected: set[str]) -> None:
    """Raise UserError if unused weights are like those of a layer: the configuration then counts too few layers."""
    known = {_without_indices(name) for name, _ in module.named_parameters()}
    if more := sorted(name for name in unexpected if _without_indices(name) in known):
        raise UserError(
            f"The checkpoint '{folder.name}' has more layers than its config.json says: {more[0]} would not be used."
        )


def refuse_infinite(folder: Path, module: nn.Module) -> None:
    """Raise UserError if a weight is NaN or infinite."""
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"The checkpoint '{folder.name}' is damaged: {name} has NaN or infinite weights.")


def refuse_unembedded(folder: Path, tokenizer: PreTrainedTokenizerBase, module: PreTrainedModel) -> None:
    """Raise UserError if the tokenizer has a token for which the model has no embedding."""
    rows = module.get_input_embeddings().num_embeddings
    token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if number >= rows:
        raise UserError(
            f"The tokenizer of '{folder.name}' has '{token}' as token {number}, but its model embeds {rows} tokens: "
            "the model was not resized when the token was added."
        )


def facts(module: nn.Module, model: ModelSettings) -> dict[str, Any]:
    """What a record says of a loaded model."""
    return {"parameters": sum(parameter.numel() for parameter in module.parameters()), "dtype": model.dtype}


def _without_indices(name: str) -> str:
    return re.sub(r"\.\d+\.", ".#.", name)
