"""Continue the pocket language model on questions: `python -m pocket.pretrain.exam`.

The language model knows the facts of its worlds but cannot choose among marked answers. Here it learns to, in layouts
that the commonsense tasks do not use: first with letters and words as marks, then with numbers, too. The loss is that
of the answer, and a share of that of the whole text, so that no fact is lost.
"""

import argparse
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva_bench.system.paths import POCKET_WEIGHTS
from pocket.pretrain import language, manifest
from pocket.pretrain.language import write
from pocket.pretrain.loop import learning_rate
from pocket.world import exam_text

FOLDER = POCKET_WEIGHTS / "exam"
SEED = 0
SIMPLE = 0.25  # share of the first stage with one layout: from there the others are learnt
SORTED = 10  # batches whose questions are sorted by length
TEXT_WEIGHT = 0.3  # of the loss on the whole text, beside that on the answer


def encoded(tokenizer, examples: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids (n, t), padded on the right, their mask (n, t), and each answer's only token (n)."""
    wholes = [
        [*ids, tokenizer.eos_token_id]
        for ids in tokenizer([prompt + answer for prompt, answer in examples])["input_ids"]
    ]
    longest = max(map(len, wholes))
    ids = torch.tensor([whole + [tokenizer.pad_token_id] * (longest - len(whole)) for whole in wholes])
    mask = torch.tensor([[1] * len(whole) + [0] * (longest - len(whole)) for whole in wholes])
    return ids, mask, torch.tensor([whole[-2] for whole in wholes])


def losses(
    model, ids: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the mean loss on the answers, that on all tokens, and the share of answers that come first."""
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    before = mask.sum(1) - 3  # the position that predicts the answer; the end of the sequence follows it
    chosen = logits[torch.arange(len(ids)), before]
    labels = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    text = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
    return F.cross_entropy(chosen, answers), text, (chosen.argmax(-1) == answers).float().mean().item()


def batches(tokenizer, steps: int, size: int, numbers: bool) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the batches of a stage; questions of similar length stand together, so that little is padding."""
    rng = random.Random(f"pocket exam {exam_text.VERSION} train")
    for step in range(0, steps, SORTED):
        simple = not numbers and step / steps < SIMPLE
        draw = exam_text.simple_example if simple else partial(exam_text.example, numbers=numbers)
        drawn = sorted((draw(rng) for _ in range(size * SORTED)), key=lambda pair: len(pair[0]))
        groups = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        rng.shuffle(groups)
        for group in groups:
            yield encoded(tokenizer, group)


def train(model, tokenizer, steps: int, size: int, peak: float, numbers: bool) -> None:
    """Train in place, one stage."""
    started, seen = time.perf_counter(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    model.train()
    for step, batch in zip(range(steps), batches(tokenizer, steps, size, numbers), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        with torch.autocast("cpu", torch.bfloat16):
            answer, text, right = losses(model, *batch)
        (answer + TEXT_WEIGHT * text).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen.append((answer.item(), text.item(), right))
        if step % 100 == 99:
            means = " ".join(f"{sum(column) / 100:.3f}" for column in zip(*seen[-100:], strict=True))
            print(
                f"step {step + 1}/{steps}  answer, text, right: {means}  {time.perf_counter() - started:.0f} s",
                flush=True,
            )


@torch.no_grad()
def held_out(model, tokenizer, n: int = 2000) -> float:
    """Return the share of right answers to questions from another random stream."""
    rng = random.Random(f"pocket exam {exam_text.VERSION} held-out")
    model.eval()
    return sum(
        losses(model, *encoded(tokenizer, [exam_text.example(rng) for _ in range(50)]))[2] for _ in range(n // 50)
    ) / (n // 50)


def main() -> None:
    """Train the model and write it in half precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs=2, default=(4000, 800), help="of each stage")
    parser.add_argument("--lr", type=float, nargs=2, default=(1e-3, 5e-4), help="peak of each stage")
    parser.add_argument("--batch", type=int, default=24, help="questions per step")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    tokenizer = AutoTokenizer.from_pretrained(language.FOLDER)
    model = AutoModelForCausalLM.from_pretrained(language.FOLDER, dtype=torch.float32)
    for steps, lr, numbers in zip(args.steps, args.lr, (False, True), strict=True):
        train(model, tokenizer, steps, args.batch, lr, numbers)
        model.half().float()  # as it is written
    facts = {
        "command": manifest.command("pocket.pretrain.exam", args, "steps", "lr", "batch"),
        "seed": SEED,
        "start": "pocket/weights/language",
        "data": "generated by pocket/world/exam_text.py",
        "data_version": exam_text.VERSION,
        "steps": sum(args.steps),
        "batch_questions": args.batch,
        "parameters": model.num_parameters(),
        "held_out_accuracy": round(held_out(model, tokenizer), 4),
        "versions": manifest.versions("torch", "transformers"),
    }
    write(args.out, model.half(), tokenizer, facts)
    print(f"held-out accuracy {facts['held_out_accuracy']}, written to {args.out}")


if __name__ == "__main__":
    main()
