"""Causal language models as bundles."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from eva_bench.assets.identity import model_folder
from eva_bench.models import checkpoint
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import find_targets
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.errors import UserError


def load(
    model: ModelSettings,
    data: DataSettings,
    device: torch.device | str = "cpu",
    outputs: int | None = None,
    seed: int = 0,
) -> ModelBundle:
    """Load model and tokenizer from a local folder; see `eva_bench.models.load`.

    Raises:
        UserError: broken checkpoint, a tokenizer that does not fit it, or target layers that match nothing.
    """
    folder = model_folder(model)
    tokenizer = checkpoint.read_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"The tokenizer of '{folder.name}' has no end-of-sequence token, without which no answer would end."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    module, missing = checkpoint.read_model(AutoModelForCausalLM, folder, model)
    checkpoint.refuse_missing(folder, missing)
    checkpoint.refuse_unembedded(folder, tokenizer, module)
    module.eval().to(device)
    origin = checkpoint.facts(module, model)
    return ModelBundle(module, tokenizer, find_targets(module, model.targets), "language", origin=origin)


def skeleton(model: ModelSettings, data: DataSettings, outputs: int | None = None) -> ModelBundle:
    """The model without weights; see `eva_bench.models.skeleton`."""
    module = checkpoint.read_skeleton(AutoModelForCausalLM, model_folder(model))
    return ModelBundle(module, None, find_targets(module, model.targets), "language")


def save(bundle: ModelBundle, folder: Path) -> None:
    """Model and tokenizer as a Hugging Face checkpoint."""
    bundle.module.save_pretrained(folder)
    bundle.processor.save_pretrained(folder)
