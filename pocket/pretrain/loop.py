"""The training loop of the pocket models that learn from a stream of generated batches."""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

PRINT_EVERY = 100  # steps


def options(description: str, folder: Path, **defaults: float) -> argparse.Namespace:
    """Read the command line of a pretraining: an option for each default and `--out`, and set what all of them need.

    Args:
        description: its first line is what `--help` says.
        folder: where the model is written by default.
        defaults: by the option's name; `threads` and `seed` are among them.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default}")
    parser.add_argument("--out", type=Path, default=folder)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.use_deterministic_algorithms(True)
    return chosen


def stream(seed: int) -> str:
    """Name of the stream of training documents: another seed reads other documents."""
    return "train" if seed == 0 else f"train-{seed}"


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step: warm-up over 2 %, then a cosine down to 3 % of the peak."""
    warmup = max(1, steps // 50)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))


def adamw(parameters: Sequence[nn.Parameter], peak: float, decay: float, beta2: float) -> torch.optim.Optimizer:
    """AdamW that decays matrices and nothing else."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, beta2), fused=True)


def fit(
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    batches: Iterator,
    loss_of: Callable[..., Tensor],
    steps: int,
    peak: float,
) -> float:
    """Train in place for so many steps and return the mean loss of the last 50."""
    losses, started = [], time.perf_counter()
    for step, batch in zip(range(steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % PRINT_EVERY == PRINT_EVERY - 1:
            speed = (time.perf_counter() - started) / (step + 1)
            mean, left = sum(losses[-PRINT_EVERY:]) / PRINT_EVERY, speed * (steps - step - 1)
            print(f"step {step + 1}/{steps}  loss {mean:.4f}  {speed:.3f} s/step  left {left:.0f} s", flush=True)
    return sum(losses[-50:]) / len(losses[-50:])
