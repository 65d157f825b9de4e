"""Encoders with a sequence classification head as bundles: RoBERTa, DeBERTa-v2/v3, BERT and their like.

The head is everything outside the encoder (RoBERTa: `classifier`; DeBERTa: `pooler` and `classifier`). A pretrained
encoder has none: it is drawn from torch's global generator, which the run seeds, and trained in full by every method.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from eva_bench.assets.identity import model_folder
from eva_bench.models.batches import default_row_mask
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.language import _first_line, find_targets
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.errors import UserError


def load(
    model: ModelSettings, data: DataSettings, device: torch.device | str = "cpu", outputs: int | None = None
) -> ModelBundle:
    """Load encoder and tokenizer from a local folder and put a head with `outputs` outputs on top.

    Raises:
        UserError: broken checkpoint, a head of another size, no pad token, or target layers that match nothing.
    """
    folder = model_folder(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        module, loading = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=outputs,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise UserError(f"The checkpoint '{folder.name}' cannot be loaded: {_first_line(error)}") from error
    head = find_head(module)
    missing = [key for key in sorted(loading["missing_keys"]) if not key.startswith(tuple(f"{name}." for name in head))]
    if missing:
        raise UserError(f"The checkpoint '{folder.name}' has no weights for {', '.join(missing[:3])}: it is incomplete.")
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UserError(f"The tokenizer of '{folder.name}' is empty: its files are incomplete.")
    if tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of '{folder.name}' has no pad token, without which texts cannot be batched.")
    module.eval().to(device)
    origin = {"parameters": sum(p.numel() for p in module.parameters()), "dtype": model.dtype}
    return _bundle(module, tokenizer, model.targets, origin)


def skeleton(model: ModelSettings, data: DataSettings, outputs: int | None = None) -> ModelBundle:
    """The model without weights (meta device): enough to check targets and ranks before loading."""
    folder = model_folder(model)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=outputs)
        with torch.device("meta"):
            module = AutoModelForSequenceClassification.from_config(config)
    except Exception as error:
        raise UserError(f"The checkpoint '{folder.name}' cannot be read: {_first_line(error)}") from error
    return _bundle(module, None, model.targets, {})


def save(bundle: ModelBundle, folder: Path) -> None:
    """Model, head and tokenizer as a Hugging Face checkpoint."""
    bundle.module.save_pretrained(folder)
    bundle.processor.save_pretrained(folder)


def find_head(module: nn.Module) -> tuple[str, ...]:
    """The modules with parameters outside the encoder, all of which a pretrained encoder lacks."""
    return tuple(
        name for name, part in module.named_children() if name != module.base_model_prefix and list(part.parameters())
    )


def context_length(bundle: ModelBundle) -> int:
    """The most tokens that the model has positions for."""
    config = bundle.module.config
    positions = config.max_position_embeddings
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1  # positions are counted from behind the padding index
    return min(positions, bundle.processor.model_max_length)


def _bundle(module: nn.Module, tokenizer, targets: list[str], origin: dict[str, Any]) -> ModelBundle:
    head, positions = find_head(module), _position_rows(module.config)
    return ModelBundle(
        module,
        tokenizer,
        find_targets(module, targets, outside=head),
        "classifier",
        head=head,
        row_mask=partial(_row_mask, positions=positions) if positions else None,
        origin=origin,
    )


def _position_rows(config) -> int:
    """How many vectors of relative positions DeBERTa sends through its query and key layers; 0 for other models."""
    if not getattr(config, "relative_attention", False):
        return 0
    sizes = (getattr(config, name, -1) for name in ("position_buckets", "max_relative_positions", "max_position_embeddings"))
    return 2 * next(size for size in sizes if size > 0)


def _row_mask(batch: dict[str, Tensor], positions: int) -> list[Tensor]:
    """Tokens count; DeBERTa's position vectors, which go through the same layers as a batch of one, do not."""
    mask = default_row_mask(batch, use_label_mask=False)
    return [mask, torch.zeros(1, positions, dtype=torch.bool, device=mask.device)]
