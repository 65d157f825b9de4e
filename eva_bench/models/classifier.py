"""Encoders with a sequence classification head as bundles: RoBERTa, DeBERTa-v2/v3, BERT and their like.

The head is what follows the encoder's layers (RoBERTa: `classifier`; DeBERTa: `pooler` and `classifier`; BERT: its
`bert.pooler`, too, the same dense layer by another name). Every method trains it in full. What the checkpoint lacks of
it is initialised from a generator of the run's seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from eva_bench.assets.identity import model_folder
from eva_bench.models import checkpoint
from eva_bench.models.batches import default_row_mask
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
    """Load encoder and tokenizer from a local folder, with a head of `outputs` outputs; see `eva_bench.models.load`.

    Raises:
        UserError: broken checkpoint, a head of another size, no pad token, or target layers that match nothing.
    """
    folder = model_folder(model)
    tokenizer = checkpoint.read_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of '{folder.name}' has no pad token, without which texts cannot be batched.")
    module, missing = checkpoint.read_model(AutoModelForSequenceClassification, folder, model, num_labels=outputs)
    prefixes = tuple(f"{name}." for name in find_head(module))
    checkpoint.refuse_missing(folder, {name for name in missing if not name.startswith(prefixes)})
    checkpoint.refuse_unembedded(folder, tokenizer, module)
    _initialise_head(module, missing, torch.Generator().manual_seed(seed))
    module.eval().to(device)
    return _bundle(module, tokenizer, model.targets, checkpoint.facts(module, model))


def skeleton(model: ModelSettings, data: DataSettings, outputs: int | None = None) -> ModelBundle:
    """The model without weights; see `eva_bench.models.skeleton`."""
    module = checkpoint.read_skeleton(AutoModelForSequenceClassification, model_folder(model), num_labels=outputs)
    return _bundle(module, None, model.targets, {})


def save(bundle: ModelBundle, folder: Path) -> None:
    """Model, head and tokenizer as a Hugging Face checkpoint."""
    bundle.module.save_pretrained(folder)
    bundle.processor.save_pretrained(folder)


def find_head(module: PreTrainedModel) -> tuple[str, ...]:
    """The modules with parameters outside the encoder, and the encoder's own pooler."""
    encoder = module.base_model_prefix
    parts = {name: part for name, part in module.named_children() if name != encoder}
    parts[f"{encoder}.pooler"] = getattr(module.base_model, "pooler", None)
    return tuple(name for name, part in parts.items() if part is not None and list(part.parameters()))


def _initialise_head(module: PreTrainedModel, missing: set[str], generator: torch.Generator) -> None:
    """Initialise the head's layers that the checkpoint lacks, as transformers does: normal weights, biases of zero."""
    for name, layer in module.named_modules():
        if f"{name}.weight" in missing and isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=module.config.initializer_range, generator=generator)
            nn.init.zeros_(layer.bias)


def context_length(bundle: ModelBundle) -> int:
    """The most tokens that the model has positions for."""
    config = bundle.module.config
    positions = config.max_position_embeddings
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1  # positions are counted from behind the padding index
    return min(positions, bundle.processor.model_max_length)


def _bundle(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, targets: Sequence[str], origin: dict[str, Any]
) -> ModelBundle:
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


def _position_rows(config: PretrainedConfig) -> int:
    """How many vectors of relative positions DeBERTa sends through its query and key layers; 0 for other models."""
    if not getattr(config, "relative_attention", False):
        return 0
    names = ("position_buckets", "max_relative_positions", "max_position_embeddings")
    sizes = (getattr(config, name, -1) for name in names)
    return 2 * next(size for size in sizes if size > 0)


def _row_mask(batch: dict[str, Tensor], positions: int) -> list[Tensor]:
    """Tokens count; DeBERTa's position vectors, which go through the same layers as a batch of one, do not."""
    mask = default_row_mask(batch, use_label_mask=False)
    return [mask, torch.zeros(1, positions, dtype=torch.bool, device=mask.device)]
