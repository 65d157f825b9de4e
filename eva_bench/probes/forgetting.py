"""Forgetting: loss and score on held-out data of what the base model was pretrained on.

Measured on the untouched model and on the tuned one with the same rows, the same masked positions and the same batches.
What is asked is what pretraining asked: next tokens of language models, masked words of encoders, actions of decision
transformers. Its head, where the model to be tuned has none, is the one pretraining left, and is never tuned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForMaskedLM

from eva_bench.assets.catalogue import entry, load_rows
from eva_bench.models.batches import IGNORED_LABEL
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.classifier import context_length, find_head
from eva_bench.models.sharding import inference
from eva_bench.system.paths import ROOT
from eva_bench.system.progress import Bar

PREFIX = "forgetting/"
LOSS = f"{PREFIX}loss"
WINDOW = 512  # longest piece of a text, in tokens
BATCH = 32
MASKED = 0.15  # share of the tokens of a text that an encoder has to restore (BERT, arXiv:1810.04805)

Rows = Sequence[dict[str, Any]]


def measure(bundle: ModelBundle, dataset: str, folder: Path, root: str | None = None) -> dict[str, float]:
    """Loss and, where there is one, score of a model as it is, with `forgetting/` before their names.

    Args:
        bundle: the model, untouched or tuned.
        dataset: the entry that `catalogue.pretraining_data` gives.
        folder: the checkpoint that the model was loaded from; encoders take their masked-word head from it.
        root: where data sets lie.

    Returns:
        forgetting/loss per prediction in nats (decision: squared error per action component), and forgetting/accuracy,
        0-1: share of next tokens, of masked words, or of textures of the ground that come first.

    Raises:
        UserError: the data set is not on this machine.
    """
    rows = load_rows(dataset, "test", root)
    ask = {"language": _next_tokens, "classifier": _masked_words, "vision": _scenes, "decision": _actions}[bundle.kind]
    with inference(bundle.module):
        found = ask(bundle, rows, dataset, folder)
    return {f"{PREFIX}{name}": value for name, value in found.items()}


def _next_tokens(bundle: ModelBundle, rows: Rows, dataset: str, folder: Path) -> dict[str, float]:
    """All texts, closed by the end-of-sequence token, in pieces of at most WINDOW tokens."""
    tokenizer = bundle.processor
    pieces = []
    for ids in tokenizer([row["text"] for row in rows], verbose=False)["input_ids"]:
        whole = ids if ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
        pieces += [whole[start : start + WINDOW] for start in range(0, len(whole), WINDOW)]
    total = _Total()
    for chosen in _batches([len(piece) for piece in pieces]):
        ids, mask = _padded([pieces[i] for i in chosen], tokenizer.pad_token_id, _device(bundle))
        logits = bundle.module(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        total.add(logits, ids[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORED_LABEL))
    return total.means()


def _masked_words(bundle: ModelBundle, rows: Rows, dataset: str, folder: Path) -> dict[str, float]:
    """Masked tokens restored by the head of the pretrained checkpoint; nothing where the checkpoint has none."""
    pretrained, loading = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    if loading["missing_keys"]:
        return {}
    (name,) = find_head(pretrained)
    head = pretrained.get_submodule(name).to(_device(bundle))
    tokenizer = bundle.processor
    cut = {"truncation": True, "max_length": min(WINDOW, context_length(bundle))}
    pairs = [[row["text"], row["pair"]] if row.get("pair") else [row["text"]] for row in rows]
    texts = [tokenizer(*pair, **cut)["input_ids"] for pair in pairs]
    masked = [_mask(ids, i, set(tokenizer.all_special_ids)) for i, ids in enumerate(texts)]
    total = _Total()
    for chosen in _batches([len(ids) for ids in texts]):
        ids, mask = _padded([texts[i] for i in chosen], tokenizer.pad_token_id, _device(bundle))
        hidden = _padded([masked[i] for i in chosen], False, _device(bundle))[0]
        shown = ids.masked_fill(hidden, tokenizer.mask_token_id)
        states = bundle.module.base_model(input_ids=shown, attention_mask=mask).last_hidden_state
        total.add(head(states[hidden]), ids[hidden])
    return total.means()


def _mask(ids: list[int], row: int, special: set[int]) -> list[bool]:
    """Which tokens of a text are masked: a draw of its own for every row, whatever the batch."""
    chance = torch.rand(len(ids), generator=torch.Generator().manual_seed(row)).tolist()
    return [token not in special and draw < MASKED for token, draw in zip(ids, chance, strict=True)]


def _scenes(bundle: ModelBundle, rows: Rows, dataset: str, folder: Path) -> dict[str, float]:
    """What is in a scene and on what ground, read by the readouts of the manifest's entry."""
    readouts = read_readouts(ROOT / entry(dataset)["readouts"], _device(bundle))
    return {name: float(value) for name, value in scenes(bundle, rows, readouts).items()}


def read_readouts(file: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Weights and biases of the linear readouts `present` and `ground` of a class token, as `held_out` fits them."""
    with np.load(file) as stored:
        return {name: torch.from_numpy(stored[name]).to(device) for name in stored.files}


def scenes(bundle: ModelBundle, rows: Rows, readouts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loss and accuracy of a vision transformer on scenes, with gradients where they are on.

    Args:
        rows: image (pixels, pixels, 3) of uint8, present (shapes + hues,) of 0 and 1, ground: index of a texture.
        readouts: present.weight (shapes + hues, width), ground.weight (textures, width), and their biases.
    """
    device = readouts["ground.bias"].device
    pixels = torch.from_numpy(np.stack([row["image"] for row in rows])).permute(0, 3, 1, 2).to(device)
    present = torch.from_numpy(np.stack([row["present"] for row in rows])).to(device)
    ground = torch.tensor([row["ground"] for row in rows], device=device)
    parts = bundle.processor.normalise(pixels).split(BATCH)
    tokens = torch.cat([bundle.module.forward_features(part)[:, 0].float() for part in parts])
    there = F.linear(tokens, readouts["present.weight"], readouts["present.bias"])
    below = F.linear(tokens, readouts["ground.weight"], readouts["ground.bias"])
    loss = F.binary_cross_entropy_with_logits(there, present) + F.cross_entropy(below, ground)
    return {"loss": loss, "accuracy": (below.argmax(1) == ground).float().mean()}


def _actions(bundle: ModelBundle, rows: Rows, dataset: str, folder: Path) -> dict[str, float]:
    """Mean squared error of the experts' actions in windows of one length."""
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(_device(bundle)) for name in rows[0]}
    return {"loss": float(F.mse_loss(bundle.module(**batch).float(), batch["actions"]))}


class _Total:
    """Cross-entropy and right predictions, summed over batches."""

    def __init__(self) -> None:
        self.loss, self.right, self.count = 0.0, 0, 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Args: logits (..., classes); labels (...), those to be left out IGNORED_LABEL."""
        logits, labels = logits.flatten(0, -2).float(), labels.flatten()
        self.loss += float(F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum"))
        self.right += int((logits.argmax(1) == labels).sum())
        self.count += int((labels != IGNORED_LABEL).sum())

    def means(self) -> dict[str, float]:
        return {"loss": self.loss / self.count, "accuracy": self.right / self.count}


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Indices in batches of similar length: little padding. Shows progress where it takes more than a moment."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    with Bar("forgetting", quiet_s=5.0) as bar:
        for start in range(0, len(order), BATCH):
            yield order[start : start + BATCH]
            bar(min(start + BATCH, len(order)), len(order))


def _padded(rows: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows padded on the right, (n, longest), and their mask."""
    longest = max(map(len, rows))
    values = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return values, mask


def _device(bundle: ModelBundle) -> torch.device:
    return next(bundle.module.parameters()).device
