"""The training loop: explicit, on Accelerate, resumable bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from torch import nn

from eva_bench.methods.base import Method
from eva_bench.methods.layer import Adapter
from eva_bench.models import sharding
from eva_bench.models.bundle import ModelBundle
from eva_bench.run import checkpoint, memory
from eva_bench.settings.schema import TrainSettings
from eva_bench.settings.spec import stream_seed
from eva_bench.system.errors import NonFiniteLoss, UserError
from eva_bench.system.progress import say, warn
from eva_bench.system.signals import Interrupted, StopSignal
from eva_bench.task import Example, Task

MIXED = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass
class TrainResult:
    """What training leaves behind for the record."""

    steps: int = 0
    tokens: int = 0  # predicted tokens that entered the loss
    resumed: int = 0
    micro_batch_size: int = 0  # of the forward passes: smaller than asked for if memory ran out
    curve: list[tuple[int, float, float, float]] = field(
        default_factory=list
    )  # [step, loss, gradient norm, learning rate]
    epochs: list[dict[str, float]] = field(default_factory=list)  # metrics after every epoch but the last
    waited_s: float = 0.0  # seconds in which the model waited for batches


def total_steps(train: TrainSettings, n_examples: int) -> int:
    """`steps`, or as many as `epochs` over the examples need."""
    if train.steps is not None:
        return train.steps
    assert train.epochs is not None  # composition asks for one of the two
    return max(1, math.ceil(train.epochs * n_examples / train.batch_size))


def snapshot_steps(total: int, count: int) -> set[int]:
    """At most `count` steps from the first to the last, evenly spaced in their logarithm."""
    return {round(total ** (i / max(count - 1, 1))) for i in range(count)} if count != 1 else {total}


def learning_rate_factor(step: int, total: int, schedule: str, warmup_ratio: float) -> float:
    """Factor on the peak learning rate at a step counted from 0: linear warm-up, then the schedule."""
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[schedule]


def batch_indices(step: int, batch_size: int, n_examples: int, seed: int) -> list[int]:
    """Rows of one step: shuffled epochs joined into one endless stream. A pure function of the step."""
    first = step * batch_size
    indices: list[int] = []
    while len(indices) < batch_size:
        epoch, offset = divmod(first + len(indices), n_examples)
        indices += epoch_order(epoch, n_examples, seed)[offset : offset + batch_size - len(indices)].tolist()
    return indices


@lru_cache(maxsize=2)
def epoch_order(epoch: int, n_examples: int, seed: int) -> torch.Tensor:
    """The rows of an epoch in their order, (n_examples,); drawn once: for millions of rows it takes seconds."""
    generator = torch.Generator().manual_seed(stream_seed(seed, f"data_order/{epoch}"))
    return torch.randperm(n_examples, generator=generator)


def ends_epoch(step: int, batch_size: int, n_examples: int) -> bool:
    """Whether the examples have been seen once more after this step, counted from 1."""
    return step * batch_size // n_examples > (step - 1) * batch_size // n_examples


def micro_batches(batch: Sequence[Example], size: int, accelerator: Accelerator) -> Iterator[Sequence[Example]]:
    """This process's share of a step, cut into forward passes."""
    mine = batch[accelerator.process_index :: accelerator.num_processes]
    for start in range(0, len(mine), size):
        yield mine[start : start + size]


def fit(
    bundle: ModelBundle,
    adapter: Adapter,
    method: Method,
    task: Task,
    examples: Sequence[Example],
    train: TrainSettings,
    seed: int,
    *,
    checkpoint_file: Path,
    stop: StopSignal | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    log: Callable[[dict[str, float]], None] = lambda values: None,
    after_step: Callable[[int], None] = lambda step: None,
    after_epoch: Callable[[int], dict[str, float]] | None = None,
    result: TrainResult | None = None,
) -> TrainResult:
    """Train the adapter; continues from `checkpoint_file` if it is there.

    Args:
        after_step: called with the number of steps after every step.
        after_epoch: called with the number of steps after every epoch but the last; its metrics are kept.
        result: filled step by step, so that it is known how far a run came that fails.

    The loss of a step is the sum over all its predictions divided by their number in the whole effective
    batch, so that one batch of 8 and 8 accumulated batches of 1 give the same gradient.

    Raises:
        NonFiniteLoss: loss or gradient norm is NaN or infinite; with the step.
        UserError: several processes that cannot share the batch evenly.
        Interrupted: after writing a checkpoint, when `stop` asks for it.
    """
    device = next(bundle.module.parameters()).device
    AcceleratorState._reset_state()  # the cells of a sweep share a process and may differ in precision
    accelerator = Accelerator(mixed_precision=MIXED[train.precision], cpu=device.type == "cpu")
    share = train.micro_batch_size * accelerator.num_processes
    if train.batch_size % share:
        raise UserError(
            f"train.batch_size={train.batch_size} is not a multiple of train.micro_batch_size="
            f"{train.micro_batch_size} times {accelerator.num_processes} processes."
        )
    groups = method.parameter_groups(adapter, train)
    total = total_steps(train, len(examples))
    optimizer = method.optimizer(adapter, groups, total)
    peak_lrs = [group["lr"] for group in optimizer.param_groups]
    split = sharding.is_split(bundle.module)  # FSDP moves the weights; the factors are whole in every process
    model, optimizer = (
        (bundle.module, accelerator.prepare_optimizer(optimizer))
        if split
        else accelerator.prepare(bundle.module, optimizer)
    )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.manual_seed(stream_seed(seed, "dropout"))
    result = _resume(checkpoint_file, adapter, optimizer, accelerator.scaler, result or TrainResult())
    result.micro_batch_size = result.micro_batch_size or train.micro_batch_size
    model.train()
    last_save = time.monotonic()
    try:
        for step in range(result.steps, total):
            indices = batch_indices(step, train.batch_size, len(examples), seed)
            batch = sorted((examples[i] for i in indices), key=task.length)  # little padding per forward pass
            count = sum(task.loss_count(example) for example in batch)  # over all processes
            factor = learning_rate_factor(step, total, train.schedule, train.warmup_ratio)
            for group, peak in zip(optimizer.param_groups, peak_lrs, strict=True):
                group["lr"] = peak * factor
            backward = partial(_backward, accelerator, model, task, bundle, batch, count, result)
            loss = _within_memory(backward, optimizer, result, alone=accelerator.num_processes == 1)
            if split:
                for parameter in parameters:
                    parameter.grad = accelerator.reduce(parameter.grad, "mean")
            if (penalty := method.penalty(adapter, train.lr)) is not None:
                accelerator.backward(penalty)
            norm = float(accelerator.clip_grad_norm_(parameters, train.clip_norm))
            value, asked = _agree(accelerator, loss, stop)
            if not math.isfinite(value) or (not math.isfinite(norm) and train.precision != "fp16"):
                raise NonFiniteLoss(step + 1, value, norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            result.steps, result.tokens = step + 1, result.tokens + count
            result.curve.append((step + 1, value, norm, peak_lrs[0] * factor))
            progress(step + 1, total, f"loss {value:.4f}")
            log(
                {"train/loss": value, "train/grad_norm": norm, "train/lr": peak_lrs[0] * factor, "train/step": step + 1}
            )
            after_step(step + 1)
            if after_epoch and step + 1 < total and ends_epoch(step + 1, train.batch_size, len(examples)):
                result.epochs.append(_evaluate_between(after_epoch, step + 1, model))
            due = time.monotonic() - last_save > 60 * train.checkpoint_minutes
            if (asked or due) and accelerator.is_main_process:
                _save(checkpoint_file, adapter, optimizer, accelerator.scaler, result)
                last_save = time.monotonic()
            if asked:
                raise Interrupted(f"after step {step + 1} of {total}")
    finally:
        # Accelerate leaves its autocast in model.forward; evaluation must not run under it unasked.
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        bundle.module.eval()
    return result


def _backward(
    accelerator: Accelerator,
    model: nn.Module,
    task: Task,
    bundle: ModelBundle,
    batch: Sequence[Example],
    count: int,
    result: TrainResult,
    size: int,
) -> torch.Tensor:
    """Gradients of one step, `size` examples in a forward pass; this process's share of the loss."""
    loss = torch.zeros((), device=accelerator.device)
    for examples in micro_batches(batch, size, accelerator):
        asked = time.perf_counter()
        inputs = task.collate(examples, bundle)
        result.waited_s += time.perf_counter() - asked
        with accelerator.autocast():
            loss_sum, _ = task.loss(model, inputs)
        part = loss_sum / max(count, 1)
        accelerator.backward(part * accelerator.num_processes)  # processes average their gradients
        loss += part.detach()
    return loss


def _evaluate_between(after_epoch: Callable[[int], dict[str, float]], step: int, model: nn.Module) -> dict[str, float]:
    """Metrics in the middle of training, which goes on as if nothing had been."""
    random_state = _rng_state()
    model.eval()
    metrics = after_epoch(step)
    model.train()
    _set_rng_state(random_state)
    return {"step": step} | metrics


def _within_memory(
    backward: Callable[[int], torch.Tensor], optimizer: AcceleratedOptimizer, result: TrainResult, alone: bool
) -> torch.Tensor:
    """Gradients of one step; where memory runs out, the step again with half the micro-batch, from here on.

    The effective batch stays the same, and the failed attempt leaves no trace: gradients and random numbers are
    as before it. Not in distributed jobs, whose processes would have to agree.
    """
    while True:
        before = _rng_state()
        try:
            return backward(result.micro_batch_size)
        except RuntimeError as error:
            if not (alone and memory.out_of_memory(error) and result.micro_batch_size > 1):
                raise
        # Not inside `except`: its traceback would keep the tensors of the failed attempt.
        optimizer.zero_grad(set_to_none=True)
        _set_rng_state(before)
        memory.release()
        result.micro_batch_size //= 2
        size = result.micro_batch_size
        warn(f"out of memory: the step is repeated with train.micro_batch_size={size}, the same effective batch")


def _rng_state() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_rng_state(state: list[torch.Tensor]) -> None:
    torch.set_rng_state(state[0])
    if torch.cuda.is_available() and len(state) == 1 + torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state[1:])


def _agree(accelerator: Accelerator, loss: torch.Tensor, stop: StopSignal | None) -> tuple[float, bool]:
    """Loss of the whole batch, and whether any process was asked to stop: all must leave at the same step."""
    asked = float(stop is not None and stop.requested)
    value, asked = accelerator.reduce(torch.stack([loss.double(), loss.new_tensor(asked).double()]), "sum").tolist()
    return value, asked > 0


def _save(
    file: Path,
    adapter: Adapter,
    optimizer: AcceleratedOptimizer,
    scaler: torch.amp.GradScaler | None,
    result: TrainResult,
) -> None:
    state = {"tensors": adapter.state_dict(), "optimizer": optimizer.state_dict(), "result": asdict(result)}
    state |= {"rng": _rng_state(), "scaler": scaler.state_dict() if scaler else None}
    checkpoint.save(file, state)


def _resume(
    file: Path,
    adapter: Adapter,
    optimizer: AcceleratedOptimizer,
    scaler: torch.amp.GradScaler | None,
    result: TrainResult,
) -> TrainResult:
    state = checkpoint.load(file)
    if state is None:
        return result
    adapter.load_state_dict(state["tensors"])
    optimizer.load_state_dict(state["optimizer"])
    _set_rng_state(state["rng"])
    if scaler and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    for name, value in state["result"].items():
        setattr(result, name, value)
    result.resumed += 1
    say(f"training continues after step {result.steps}, from its checkpoint")
    return result
