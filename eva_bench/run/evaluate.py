"""Answers of all rows and the loss on the reference answers: shared among processes, in batches that fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from eva_bench.models.bundle import ModelBundle
from eva_bench.records.samples import begin
from eva_bench.run import memory, together
from eva_bench.settings.spec import RunSpec
from eva_bench.system.files import write_atomically
from eva_bench.system.processes import distributed, is_main_process
from eva_bench.task import Evaluation, Task, loss_sum


def answers(
    task: Task,
    bundle: ModelBundle,
    rows: list[dict[str, Any]],
    dataset: str,
    spec: RunSpec,
    samples_file: Path,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """One sample per row, in order; each process answers its share, and the first one writes all of them.

    Args:
        samples_file: JSON lines; what it holds of an interrupted evaluation is not answered again by one process alone.
        progress: called with (done, total) of this process's rows.
    """
    share = together.share(len(rows), spec.model.sharded)
    file = samples_file
    if distributed():
        file = samples_file.with_name(f"share-{samples_file.name}")
        begin(file, "one process of several", fresh=True)

    def answer(batch_size: int) -> list[dict[str, Any]]:
        settings = spec.eval.model_copy(update={"batch_size": batch_size})
        with _precision(bundle, spec):
            return task.evaluate(bundle, Evaluation(rows[share], dataset, settings, spec.data, file, progress))

    mine, _ = memory.in_halves(answer, spec.eval.batch_size, "eval.batch_size")
    if not distributed():
        return mine
    numbered = [sample | {"row": share.start + i} for i, sample in enumerate(mine)]
    samples = together.gathered(numbered, len(rows), spec.model.sharded)
    if is_main_process():
        write_atomically(samples_file, "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples))
    file.unlink(missing_ok=True)
    return samples


def reference_loss(
    task: Task,
    bundle: ModelBundle,
    rows: list[dict[str, Any]],
    dataset: str,
    spec: RunSpec,
    progress: Callable[[int, int], None],
) -> float | None:
    """Loss per prediction of the reference answers; None where the task has none. `progress` as in `answers`."""
    examples = task.reference_examples(rows, dataset, bundle, spec.data)
    if not examples:
        return None
    share = together.share(len(examples), spec.model.sharded)

    def measure(batch_size: int) -> tuple[float, int]:
        with _precision(bundle, spec):
            return loss_sum(task, bundle, examples[share], batch_size, progress)

    parts, _ = memory.in_halves(measure, spec.eval.batch_size, "eval.batch_size")
    found = together.gathered([parts], len(examples), spec.model.sharded)
    return sum(total for total, _ in found) / max(sum(count for _, count in found), 1)


def _precision(bundle: ModelBundle, spec: RunSpec) -> AbstractContextManager[None]:
    """The autocast of `eval.precision`."""
    device = next(bundle.module.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=spec.eval.precision == "bf16")
