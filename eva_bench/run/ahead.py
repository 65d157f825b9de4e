"""What is ahead of a run: answers and steps, seconds and memory, from earlier records or one measured batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import mean

import torch

from eva_bench.models.bundle import ModelBundle
from eva_bench.records.store import Store, read_record
from eva_bench.run import plan_cost, train
from eva_bench.settings.schema import Settings
from eva_bench.settings.spec import RunSpec, what
from eva_bench.system.meter import Cost
from eva_bench.system.progress import duration, warn
from eva_bench.task import Example, Task

NEWEST = 10  # records of a cell that are looked at
TRAINING_PASSES = 3  # a step takes about three forward passes: backward is twice one
LONG_S = 60.0  # a run that is longer also gets an estimate of its memory, which takes seconds itself


def outlook(
    spec: RunSpec, store: Store, task: Task, bundle: ModelBundle, examples: Sequence[Example], n_rows: int
) -> str:
    """One line for the terminal, before anything long begins.

    Args:
        spec: of the run.
        store: with earlier records, perhaps of this cell with another seed.
        task: makes batches and their loss.
        bundle: the loaded model, which stays as it is.
        examples: for training.
        n_rows: how many rows are answered.
    """
    steps = train.total_steps(spec.train, len(examples))
    work = f"ahead: {n_rows:,} answers before and after, {steps:,} steps of {spec.train.batch_size} examples"
    if (cost := recorded(spec, store)) is not None:
        return f"{work}; about {duration(cost.seconds)} and {cost.memory_bytes / 1e9:.1f} GB, by earlier records"
    forward_s = _seconds(lambda: _forward(spec, task, bundle, examples))
    training_s = TRAINING_PASSES * forward_s * steps * spec.train.batch_size / spec.train.micro_batch_size
    answers_s, counted = _answering(spec, bundle, forward_s, n_rows)
    seconds = training_s + 2 * answers_s
    line = f"{work}; {counted.format(duration(seconds))}, by one measured batch"
    return line if seconds < LONG_S else line + _memory(spec)


def recorded(spec: RunSpec, store: Store) -> Cost | None:
    """Seconds and peak of earlier runs with the same training and evaluation, caches left out; None: there is none."""
    files = sorted(store.folder(spec).glob("*.json"), key=lambda path: path.stat().st_mtime)[-NEWEST:]
    records = [record for record in map(read_record, files) if record is not None and record.status == "ok"]
    wanted = (what(spec.train), what(spec.eval), spec.identity.model)
    same = [r for r in records if (what(r.spec.train), what(r.spec.eval), r.spec.identity.model) == wanted]
    phases: dict[str, list[Cost]] = {}
    for record in same:
        for name, cost in record.costs.items():
            if not record.reused.get(name):
                phases.setdefault(name, []).append(cost)
    if "train" not in phases:
        return None
    seconds = sum(mean(cost.seconds for cost in costs) for costs in phases.values())
    peak = max(cost.memory_bytes for costs in phases.values() for cost in costs)
    return Cost(seconds=seconds, peak_bytes=peak)


def _seconds(action: Callable[[], object]) -> float:
    """Wall time of an action, which has run once before: the first time is slower."""
    action()
    _synchronise()
    start = time.perf_counter()
    action()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def _forward(spec: RunSpec, task: Task, bundle: ModelBundle, examples: Sequence[Example]) -> None:
    """The loss of a micro-batch of examples of middling length."""
    by_length = sorted(range(min(len(examples), 1000)), key=lambda i: task.length(examples[i]))
    first = max(0, (len(by_length) - spec.train.micro_batch_size) // 2)
    batch = task.collate([examples[i] for i in by_length[first : first + spec.train.micro_batch_size]], bundle)
    device = next(bundle.module.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=spec.train.precision != "float32"):
        task.loss(bundle.module, batch)


@torch.no_grad()
def _answering(spec: RunSpec, bundle: ModelBundle, forward_s: float, n_rows: int) -> tuple[float, str]:
    """Seconds of one evaluation, and how to say what they are."""
    if spec.model.kind == "decision":
        return 0.0, "about {} without the episodes"
    if spec.eval.max_new_tokens is None:
        return forward_s * n_rows / spec.train.micro_batch_size, "about {}"
    ids = torch.zeros(spec.eval.batch_size, 1, dtype=torch.long, device=next(bundle.module.parameters()).device)
    token_s = _seconds(lambda: bundle.module(input_ids=ids, use_cache=False))
    batches = -(-n_rows // spec.eval.batch_size)
    return batches * (forward_s + spec.eval.max_new_tokens * token_s), "at most about {}"


def _memory(spec: RunSpec) -> str:
    """Peak memory by arithmetic; an estimate that fails ends no run."""
    try:
        sections = {name: getattr(spec, name) for name in Settings.model_fields if hasattr(spec, name)}
        return f", and {plan_cost.cost_of(Settings.model_construct(**sections)).peak / 1e9:.1f} GB, by arithmetic"
    except Exception as error:
        warn(f"memory is not estimated: {type(error).__name__}: {str(error).splitlines()[0]}")
        return ""
