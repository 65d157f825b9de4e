"""`python run.py ... plan=true`: a run's cost for the terminal, and a word before a run that would not fit its GPU."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from eva_bench.assets.catalogue import entry
from eva_bench.run.plan_cost import Cost, cost_of
from eva_bench.run.together import place
from eva_bench.settings.compose import dataset_names
from eva_bench.settings.schema import Settings
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import UserError
from eva_bench.system.progress import warn

GB = 1e9
A100 = 0.4 * 312e12  # operations a second: bf16, at the share that trainings of such models reach
SMALL = 0.02  # share of a device's memory: models whose weights take less are not planned before each of their runs
RESERVE = 0.9  # of a device's memory: the rest goes to its context and to fragments


def memory_sizes(text: str) -> dict[str, float]:
    """`24GB,80GB` in bytes, by name.

    Raises:
        UserError: something else.
    """
    sizes = {item: re.fullmatch(r"(\d+(?:\.\d+)?) ?GB", item.strip()) for item in text.split(",")}
    if wrong := [item for item, match in sizes.items() if match is None]:
        raise UserError(f"plan.memory={text}: '{wrong[0]}' is no size; give for example plan.memory=24GB,80GB.")
    return {item.strip(): float(match[1]) * GB for item, match in sizes.items() if match}


def process_count(text: str) -> int:
    """The number of processes that `plan.processes` gives.

    Raises:
        UserError: no whole number from 1 on.
    """
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"plan.processes={text} must be a whole number, at least 1.")
    return int(text)


def devices() -> dict[str, float]:
    """Memory of the GPUs that are there, in bytes, by name."""
    found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return {facts.name: float(facts.total_memory) for facts in found}


def advice(settings: Settings, cost: Cost, memory: float) -> list[str]:
    """Settings that would make a run smaller where it does not fit."""
    limit, found = RESERVE * memory, []
    if cost.training > limit:
        if settings.train.micro_batch_size > 1:
            found.append("train.micro_batch_size=1 (the effective batch stays)")
        if not settings.train.gradient_checkpointing:
            found.append("train.gradient_checkpointing=true (the same numbers, more time)")
    if cost.evaluation > limit and settings.eval.batch_size > 1:
        found.append(f"eval.batch_size={max(1, settings.eval.batch_size // 4)} (an evaluation halves it by itself)")
    if cost.weights > 0.5 * limit and settings.model.dtype == "float32":
        found.append("model.dtype=bfloat16 (half the weights; other numbers)")
    return found


def verdict(settings: Settings, cost: Cost, memory: float) -> str:
    """Whether a run fits a device of so many bytes, and what would help if not."""
    if cost.peak <= RESERVE * memory:
        return "fits"
    return f"does not fit: {'; '.join(advice(settings, cost, memory)) or 'a larger GPU'}"


def files(settings: Settings, parameters: int) -> list[str]:
    """What a run reads, file by file or repository by repository, with sizes as far as they are known."""
    names = dict.fromkeys(dataset_names(settings))
    parts = dict.fromkeys(part for name in names for part in entry(name).get("parts", [name]))
    found = [f"{name}: {_size(entry(name))}" for name in parts]
    if settings.model.hub_id is None:
        return [*found, f"{settings.model.name}: in the repository"]
    smallest, largest = 2 * parameters / GB, 4 * parameters / GB
    return [
        *found,
        f"{settings.model.hub_id}: about {smallest:.2f} GB where weights are 16 bits, {largest:.2f} GB at 32",
    ]


def _size(info: dict[str, Any]) -> str:
    """Of the files of a manifest's entry."""
    if "generator" in info:
        return "generated"
    if "by_hand" in info:
        return "put there by hand"
    splits = info.get("splits", {}).values()
    rows = sum(split.get("rows", 0) for split in splits)
    sizes = [split.get("bytes") for split in splits]
    size = "size told by make fetch" if None in sizes or not sizes else f"{sum(sizes) / 1e6:.2f} MB"
    return f"{rows:,} rows, {size}" if rows else size


def hours(cost: Cost) -> str:
    """Time of a training in hours of an A100, at most: examples are as long as allowed."""
    if cost.flops is None:
        return "known when the data are here"
    return f"at most {cost.flops / A100 / 3600:.2f} hours of an A100 at {A100 / 1e12:.0f} TFLOP/s"


def report(settings: Settings, memory: dict[str, float], processes: int = 1) -> str:
    """The cost of a run for the terminal; where its weights are split among processes, memory is that of each."""
    cost = cost_of(settings, processes)
    steps = "known when the data are here" if cost.steps is None else f"{cost.steps:,}, at most {cost.tokens:,} tokens"
    lines = [
        f"{settings.method.name} on {settings.task.name}, {settings.model.name}. Nothing was run.",
        f"parameters        {cost.parameters:,}, trained {cost.trained:,}",
        f"weights           {cost.weights / GB:.2f} GB in {settings.model.dtype}{_split(settings, processes)}",
        f"optimiser         {cost.optimiser / GB:.2f} GB (gradients and two moments)",
        f"training peak     {cost.training / GB:.2f} GB, micro-batches of {settings.train.micro_batch_size}",
        f"generation cache  {cost.generation_cache / GB:.2f} GB, batches of {settings.eval.batch_size}",
        f"evaluation peak   {cost.evaluation / GB:.2f} GB",
        f"steps             {steps}",
        f"training time     {hours(cost)}",
        *(f"{'reads' if i == 0 else '':<17} {line}" for i, line in enumerate(files(settings, cost.parameters))),
    ]
    lines += [f"{name:<17} {verdict(settings, cost, size)}" for name, size in memory.items()]
    return "\n".join(lines)


def _split(settings: Settings, processes: int) -> str:
    if not settings.model.sharded:
        return ""
    return f", in each of {processes} processes" if processes > 1 else "; plan.processes=8 splits them among eight"


def foresee(spec: RunSpec, skeleton: nn.Module) -> None:
    """Say before anything is loaded that a run does not fit the GPU that it would run on.

    Args:
        spec: of the run.
        skeleton: its model, without weights.

    Raises:
        UserError: the weights alone do not fit.
    """
    here = devices()
    if not here:
        return
    name, memory = min(here.items(), key=lambda item: item[1])
    weights = sum(p.numel() for p in skeleton.parameters()) * getattr(torch, spec.model.dtype).itemsize
    processes = place()[1] if spec.model.sharded else 1
    weights /= processes
    if weights < SMALL * memory:
        return
    settings = Settings(**{name: getattr(spec, name) for name in RunSpec.model_fields if name in Settings.model_fields})
    cost = cost_of(settings, processes)
    helps = "; ".join(advice(settings, cost, memory)) or "a larger GPU"
    if weights > RESERVE * memory:
        raise UserError(
            f"{spec.model.name} has {weights / GB:.1f} GB of weights in {spec.model.dtype} and {name} "
            f"{memory / GB:.1f} GB of memory: {helps}."
        )
    if cost.peak > RESERVE * memory:
        warn(f"this run is planned to need {cost.peak / GB:.1f} GB of the {memory / GB:.1f} GB of {name}: {helps}")
