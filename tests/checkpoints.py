"""Small random checkpoints with the architecture and the kind of tokenizer of every text model of the recipes.

`write_checkpoint("llama2_7b", folder)` writes what the real hub repository holds, in small: config, weights and a
tokenizer trained here. Keys are the names in conf/model/.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    DebertaV2Config,
    Gemma2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

from pocket.datasets import gsm8k

VOCABULARY = 420
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.1,
}  # fmt: skip
# Splits of Qwen2 (single digits) and of Llama 3 (up to three digits), shortened to what matters for ASCII text.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts() -> list[str]:
    """A few hundred lines to train tokenizers on."""
    return [text for row in gsm8k.generate("train", 120) for text in (row["question"], *row["answer"].split("\n"))]


@dataclass(frozen=True)
class Kind:
    """How one model family looks: its config class and values, its tokenizer and that one's class on the hub."""

    config: Callable
    values: dict
    tokenizer: Callable[[], Tokenizer]
    tokenizer_class: str
    tokens: dict[str, str]  # bos_token, eos_token, pad_token, unk_token
    options: dict
    model: type = AutoModelForCausalLM


def byte_level(specials: list[str], before: list, normalizer=None, **options) -> Tokenizer:
    """Byte-level BPE as in GPT-2, Qwen2 and Llama 3: every byte is a token, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(before)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def byte_fallback(specials: list[str], unknown: str, normalizer, decoder, before=None) -> Tokenizer:
    """Sentencepiece-like BPE over characters; a character that is not in the vocabulary becomes its bytes."""
    draft = Tokenizer(models.BPE(unk_token=unknown))
    draft.normalizer = normalizer
    draft.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[*specials, *BYTES], show_progress=False)
    draft.train_from_iterator(texts(), trainer)
    model = json.loads(draft.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    bpe = models.BPE(model["vocab"], merges, unk_token=unknown, byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(bpe)  # again, so that the byte tokens are ordinary ones
    tokenizer.normalizer, tokenizer.decoder = normalizer, decoder
    if before is not None:
        tokenizer.pre_tokenizer = before
    tokenizer.add_special_tokens(specials)
    return tokenizer


def with_bos(tokenizer: Tokenizer, bos: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def smollm2_tokenizer() -> Tokenizer:
    before = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], before)


def _split(digits: str) -> list:
    pattern = Regex(SPLIT.format(digits=digits))
    return [
        pre_tokenizers.Split(pattern, "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def qwen2_tokenizer() -> Tokenizer:
    return byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], _split(""), normalizers.NFC())


def llama3_tokenizer() -> Tokenizer:
    tokenizer = byte_level(["<|begin_of_text|>", "<|end_of_text|>"], _split("{1,3}"), ignore_merges=True)
    return with_bos(tokenizer, "<|begin_of_text|>")


def llama2_tokenizer() -> Tokenizer:
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    decoder = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer = byte_fallback(["<unk>", "<s>", "</s>"], "<unk>", normalizer, decoders.Sequence(decoder))
    return with_bos(tokenizer, "<s>")


def gemma2_tokenizer() -> Tokenizer:
    decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials, before = ["<pad>", "<eos>", "<bos>", "<unk>"], pre_tokenizers.Split(" ", "merged_with_previous")
    return with_bos(byte_fallback(specials, "<unk>", normalizers.Replace(" ", "▁"), decoder, before), "<bos>")


def roberta_tokenizer() -> Tokenizer:
    tokenizer = byte_level(
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return tokenizer


def deberta_tokenizer() -> Tokenizer:
    """Sentencepiece-like unigrams."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def bert_tokenizer() -> Tokenizer:
    """Pieces of lower-case words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
END = "<|endoftext|>"
ROBERTA = Kind(
    RobertaConfig, {"max_position_embeddings": 130, "type_vocab_size": 1}, roberta_tokenizer, "RobertaTokenizer",
    {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>",
     "unk_token": "<unk>", "mask_token": "<mask>"},
    {"add_prefix_space": False}, AutoModelForMaskedLM,
)  # fmt: skip
LLAMA3 = Kind(
    LlamaConfig, {"rope_parameters": LLAMA3_ROPE}, llama3_tokenizer, "PreTrainedTokenizerFast",
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}, {},
)  # fmt: skip
KINDS = {
    "smollm2_135m": Kind(
        LlamaConfig,
        {"tie_word_embeddings": True},
        smollm2_tokenizer,
        "GPT2Tokenizer",
        {"bos_token": END, "eos_token": END, "unk_token": END},
        {"add_prefix_space": False},
    ),
    "qwen2_5_0_5b": Kind(
        Qwen2Config,
        {"tie_word_embeddings": True},
        qwen2_tokenizer,
        "Qwen2Tokenizer",
        {"eos_token": END, "pad_token": END},
        {"add_bos_token": False},
    ),
    "llama2_7b": Kind(
        LlamaConfig,
        {"num_key_value_heads": 4},
        llama2_tokenizer,
        "LlamaTokenizer",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        {"add_bos_token": True, "add_eos_token": False},
    ),
    "llama3_1_8b": LLAMA3,
    "llama3_1_70b": LLAMA3,
    "gemma2_9b": Kind(
        Gemma2Config,
        {
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window": 16,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "tie_word_embeddings": True,
        },
        gemma2_tokenizer,
        "GemmaTokenizer",
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
        {"add_bos_token": True, "add_eos_token": False},
    ),
    "roberta_base": ROBERTA,
    "roberta_large": ROBERTA,
    "deberta_v3_base": Kind(
        DebertaV2Config,
        {
            "relative_attention": True,
            "position_buckets": 8,
            "max_relative_positions": -1,
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
            "max_position_embeddings": 128,
        },
        deberta_tokenizer,
        "DebertaV2Tokenizer",
        {
            "bos_token": "[CLS]",
            "eos_token": "[SEP]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
        },
        {},
        AutoModelForMaskedLM,
    ),
    "minilm_l6": Kind(
        BertConfig,
        {"max_position_embeddings": 128},
        bert_tokenizer,
        "BertTokenizer",
        {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
        },
        {"do_lower_case": True},
        AutoModel,
    ),
}


def write_checkpoint(name: str, folder: Path) -> Path:
    """Write a random checkpoint of a model of conf/model/ as its hub repository is laid out; returns the folder."""
    kind = KINDS[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=kind.tokenizer(), model_max_length=1024, **kind.tokens)
    tokenizer.save_pretrained(folder)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text()) | kind.options | {"tokenizer_class": kind.tokenizer_class}
    settings_file.write_text(json.dumps(settings, indent=1))
    roles = ("bos_token", "eos_token", "pad_token")
    ids = {f"{role}_id": tokenizer.convert_tokens_to_ids(kind.tokens[role]) for role in roles if role in kind.tokens}
    config = kind.config(**(SMALL | {"vocab_size": len(tokenizer) + 8, "pad_token_id": None} | ids | kind.values))
    torch.manual_seed(0)
    kind.model.from_config(config).save_pretrained(folder)
    return folder
