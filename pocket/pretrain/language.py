"""Pretrain the pocket language model: `python -m pocket.pretrain.language`.

Builds the tokenizer, trains a small Llama on generated text and writes weights, tokenizer and manifest into one
folder. The same versions on the same kind of processor with the same number of threads give the same bytes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from eva_bench.system.paths import POCKET_WEIGHTS
from pocket.pretrain import loop, manifest
from pocket.world import corpus
from pocket.world.worlds import COMMON, SENTENCE_STARTS

FOLDER = POCKET_WEIGHTS / "language"
SPECIAL = ("<|bos|>", "<|eos|>", "<|pad|>")
LARGEST_NUMBER = 200  # every whole number from 0 to this one is a single token
VOCABULARY = 2304
LENGTH = 192  # tokens of a training sequence; documents are packed one behind the other

# Words, each with the space before it, numbers of up to three digits, runs of signs, line breaks, other spaces.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|[\r\n]+|\s+(?!\S)|\s+"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: any text is tokenised and decoded without loss."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Numbers and the marks of the tasks' answers come so often that their merges are learnt before all others.
    certain = [" ".join(map(str, range(LARGEST_NUMBER + 1))), "<< >> ####"] * 5000
    texts = corpus.first_documents("tokenizer", 20000)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        certain + texts + ["\n".join(SENTENCE_STARTS) + " " + " ".join(COMMON)] * 100, trainer
    )
    bos, eos, pad = SPECIAL
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return the untrained model, drawn from the seed."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.03,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, stream: str, size: int) -> Iterator[torch.Tensor]:
    """Yield batches of shape (size, LENGTH): the documents of a stream, packed without gaps."""
    source, buffer = corpus.documents(stream), []
    while True:
        while len(buffer) < size * LENGTH:
            texts = [next(source) for _ in range(1000)]
            for ids in tokenizer(texts)["input_ids"]:
                buffer += [*ids, tokenizer.eos_token_id]
        yield torch.tensor(buffer[: size * LENGTH]).view(size, LENGTH)
        buffer = buffer[size * LENGTH :]


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, n_batches: int = 8) -> float:
    """Return the mean next-token loss on text the model has not seen."""
    model.eval()
    source = batches(tokenizer, "held-out", 32)
    losses = [
        model(input_ids=batch, labels=batch).loss.item() for batch, _ in zip(source, range(n_batches), strict=False)
    ]
    model.train()
    return sum(losses) / len(losses)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> float:
    """Train in place and return the mean loss of the last 50 steps."""

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(input_ids=batch, labels=batch).loss

    parameters = list(model.parameters())
    optimizer = loop.adamw(parameters, args.lr, decay=0.1, beta2=0.95)
    source = batches(tokenizer, loop.stream(args.seed), args.batch)
    return loop.fit(parameters, optimizer, source, loss_of, args.steps, args.lr)


def write(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: dict) -> None:
    """Save model, tokenizer and manifest; greedy generation with the tokenizer's tokens."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    manifest.save_pretrained(folder, model, tokenizer, facts)


def main() -> None:
    """Pretrain the model and write it."""
    args = loop.options(__doc__, FOLDER, steps=5000, batch=16, lr=3e-3, threads=2, seed=0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, args.seed)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens in the vocabulary", flush=True)
    final = train(model, tokenizer, args)
    facts = {
        "command": manifest.command("pocket.pretrain.language", args, "steps", "batch", "lr", "threads", "seed"),
        "seed": args.seed,
        "data": f"generated by pocket/world/corpus.py, stream '{loop.stream(args.seed)}'",
        "corpus_version": corpus.VERSION,
        "corpus_sha256_of_first_20000_documents": corpus.checksum(
            corpus.first_documents(loop.stream(args.seed), 20000)
        ),
        "steps": args.steps,
        "batch_sequences": args.batch,
        "sequence_tokens": LENGTH,
        "tokens": args.steps * args.batch * LENGTH,
        "parameters": model.num_parameters(),
        "final_loss": round(final, 4),
        "held_out_loss": round(held_out_loss(model, tokenizer), 4),
        "versions": manifest.versions("torch", "transformers", "tokenizers"),
    }
    write(args.out, model, tokenizer, facts)
    print(f"held-out loss {facts['held_out_loss']}, written to {args.out}")


if __name__ == "__main__":
    main()
