"""Models and batches for the benchmark of EVA's initialisation."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
Batches = list[dict[str, torch.Tensor]]
ROWS, LENGTH = 960, 128  # of text: 60 batches of 16


def load_pretrained(name: str) -> tuple[nn.Module, Batches] | None:
    """A pretrained model and batches of text for it, one example a row; None where it is not at hand."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    folder = _folder(name)
    if folder is None or not (folder / "config.json").exists():
        return None
    kind = AutoModel if name == "minilm" else AutoModelForCausalLM
    model, tokenizer = kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    text = tokenizer(_text(name), truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt")
    parts = (text["input_ids"].split(16), text["attention_mask"].split(16))
    return model, [{"input_ids": ids, "attention_mask": mask} for ids, mask in zip(*parts, strict=True)]


def _folder(name: str) -> Path | None:
    if name == "pocket":
        return ROOT / "pocket" / "weights" / "language"
    data = os.environ.get("EVA_BENCH_DATA")
    if data is None:
        return None
    return Path(data) / "models" / ("sentence-transformers/all-MiniLM-L6-v2" if name == "minilm" else name)


def _text(name: str) -> list[str]:
    """GSM8K where it is at hand, else (and always for the pocket model) the pocket world's word problems."""
    data = os.environ.get("EVA_BENCH_DATA")
    if data and name != "pocket":
        import pandas as pd

        rows = pd.read_parquet(next(Path(data).glob("hub/openai/gsm8k/main/train*.parquet")))
        return list(rows.question[:ROWS] + " " + rows.answer[:ROWS])
    from eva_bench.assets.catalogue import load_rows

    rows = load_rows("pocket/gsm8k", "train", None)
    return [f"{row['question']} {row['answer']}" for row in rows[:ROWS]]


def random_llama(width: int, layers: int, count: int, rows: tuple[int, int]) -> tuple[nn.Module, Batches]:
    """A Llama of random weights whose embeddings have the decaying spectrum of a trained model, and token batches."""
    from transformers import LlamaConfig, LlamaForCausalLM

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=width, intermediate_size=(8 * width // 3 + 63) // 64 * 64,
        num_hidden_layers=layers, num_attention_heads=width // 32, max_position_embeddings=rows[1],
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight *= torch.arange(1, width + 1).pow(-0.5)
    tokens = [torch.randint(0, 2000, rows, generator=generator) for _ in range(count)]
    return model, [{"input_ids": ids} for ids in tokens]
