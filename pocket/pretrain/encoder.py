"""Pretrain the pocket encoder: `python -m pocket.pretrain.encoder`.

A small RoBERTa learns masked words and, as BERT does, whether two texts belong together (Devlin et al.,
arXiv:1810.04805), on generated text. The same versions on the same kind of processor with the same number of threads
give the same bytes.
"""

import argparse
from collections.abc import Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from eva_bench.system.paths import POCKET_WEIGHTS
from pocket.pretrain import loop, manifest
from pocket.pretrain.language import PIECES
from pocket.world import encoder_corpus
from pocket.world.worlds import COMMON, SENTENCE_STARTS

FOLDER = POCKET_WEIGHTS / "encoder"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
VOCABULARY = 1792
CONTEXT = 256  # tokens
IGNORE = -100
CHOSEN, MASKED, RANDOM = 0.22, 0.75, 0.15  # share of positions predicted; of these, share masked, share replaced


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with RoBERTa's special tokens and its form of pairs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pairs = islice(encoder_corpus.documents("tokenizer"), 20000)
    texts = [text for pair in pairs for text in pair if text]
    tokenizer.train_from_iterator([*texts, *["\n".join(SENTENCE_STARTS) + " " + " ".join(COMMON)] * 100], trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> RobertaForMaskedLM:
    """Return the untrained model, drawn from the seed."""
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT + 2,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return RobertaForMaskedLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, stream: str, size: int, seed: int = 0) -> Iterator[dict[str, Tensor]]:
    """Yield padded batches: input_ids and attention_mask (size, longest), and together (size).

    `together` is 1 for two texts of a pair, 0 for texts of two pairs, and IGNORE for a single text.
    In half of the pairs the second text is that of another pair.
    """
    source = encoder_corpus.documents(stream)
    generator = torch.Generator().manual_seed(seed)
    while True:
        documents = list(islice(source, 40 * size))
        paired = [i for i, (_, second) in enumerate(documents) if second]
        seconds, together = [second for _, second in documents], [IGNORE] * len(documents)
        for i in paired:
            together[i] = int(torch.rand((), generator=generator) < 0.5)
            if not together[i]:
                other = paired[int(torch.randint(len(paired), (), generator=generator))]
                seconds[i] = documents[other][1]
        ids = [
            tokenizer(first, second, truncation=True)["input_ids"]
            for (first, _), second in zip(documents, seconds, strict=True)
        ]
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # little padding
        groups = [by_length[start : start + size] for start in range(0, len(by_length), size)]
        for at in torch.randperm(len(groups), generator=generator).tolist():
            batch = tokenizer.pad({"input_ids": [ids[i] for i in groups[at]]}, return_tensors="pt")
            yield dict(batch) | {"together": torch.tensor([together[i] for i in groups[at]])}


def loss_of(
    model: RobertaForMaskedLM, together: nn.Linear, batch: dict[str, Tensor], generator: torch.Generator
) -> Tensor:
    """Mean loss on chosen positions, plus that on whether the texts belong together."""
    ids = batch["input_ids"]
    chance = torch.rand(ids.shape, generator=generator)
    chosen = (chance < CHOSEN) & (ids >= len(SPECIAL))
    how = torch.rand(ids.shape, generator=generator)
    random_ids = torch.randint(len(SPECIAL), model.config.vocab_size, ids.shape, generator=generator)
    hidden_ids = torch.where(chosen & (how < MASKED), SPECIAL.index("<mask>"), ids)
    hidden_ids = torch.where(chosen & (how > 1 - RANDOM), random_ids, hidden_ids)
    states = model.roberta(hidden_ids, attention_mask=batch["attention_mask"]).last_hidden_state  # (n, t, width)
    words = F.cross_entropy(model.lm_head(states[chosen]).float(), ids[chosen])
    pairs = F.cross_entropy(together(states[:, 0]).float(), batch["together"], ignore_index=IGNORE)
    return words + pairs.nan_to_num()  # a batch of single texts has no pair


@torch.no_grad()
def held_out_loss(model: RobertaForMaskedLM, together: nn.Linear, tokenizer: PreTrainedTokenizerFast) -> float:
    """Return the mean loss on text the model has not seen."""
    generator = torch.Generator().manual_seed(0)
    source = islice(batches(tokenizer, "held-out", 64), 16)
    losses = [loss_of(model, together, batch, generator).item() for batch in source]
    return sum(losses) / len(losses)


def train(model: RobertaForMaskedLM, together: nn.Linear, tokenizer, args: argparse.Namespace) -> float:
    """Train in place and return the mean loss of the last 50 steps."""
    parameters = [*model.parameters(), *together.parameters()]
    optimizer = loop.adamw(parameters, args.lr, decay=0.05, beta2=0.98)
    generator = torch.Generator().manual_seed(args.seed)

    def loss(batch) -> torch.Tensor:
        return loss_of(model, together, batch, generator)

    source = batches(tokenizer, loop.stream(args.seed), args.batch, args.seed)
    return loop.fit(parameters, optimizer, source, loss, args.steps, args.lr)


def main() -> None:
    """Pretrain the model and write it."""
    args = loop.options(__doc__, FOLDER, steps=12000, batch=48, lr=2e-3, threads=1, seed=0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, args.seed)
    together = nn.Linear(model.config.hidden_size, 2)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens in the vocabulary", flush=True)
    final = train(model, together, tokenizer, args)
    facts = {
        "command": manifest.command("pocket.pretrain.encoder", args, "steps", "batch", "lr", "threads", "seed"),
        "seed": args.seed,
        "data": f"generated by pocket/world/encoder_corpus.py, stream '{loop.stream(args.seed)}'",
        "corpus_version": encoder_corpus.VERSION,
        "steps": args.steps,
        "batch_documents": args.batch,
        "parameters": model.num_parameters(),
        "final_loss": round(final, 4),
        "held_out_loss": round(held_out_loss(model, together, tokenizer), 4),
        "versions": manifest.versions("torch", "transformers", "tokenizers"),
    }
    manifest.save_pretrained(args.out, model, tokenizer, facts)
    print(f"held-out loss {facts['held_out_loss']}, written to {args.out}")


if __name__ == "__main__":
    main()
