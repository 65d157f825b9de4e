"""The step of a run, in the suite's training loop and in a bare PyTorch loop on the same model and batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from eva_bench import models
from eva_bench.records.store import Store
from eva_bench.run import pipeline
from eva_bench.run.prepare import prepare
from eva_bench.run.session import Session
from eva_bench.run.train import TrainResult, batch_indices, fit
from eva_bench.settings.compose import compose_spec
from eva_bench.system.signals import StopSignal
from eva_bench.task import split_rows


class Training:
    """A run that is ready to train.

    Args:
        method: a choice of conf/method/ whose initialisation reads no data.
        task: a choice of conf/task/.
        steps: of one timed block.
        more: further settings, as on the command line.
    """

    def __init__(self, method: str, task: str, steps: int, more: Sequence[str] = ()) -> None:
        spec = compose_spec([f"method={method}", f"task={task}", "tracking=off", f"train.steps={steps}", *more])
        run = prepare(spec, Session(StopSignal()), Store(spec.where.results_dir))
        pipeline.seed_everything(spec)
        self.settings, self.steps = spec.train, steps
        self.task, self.method = run.task, run.method
        self.bundle = models.load(spec.model, spec.data, "cpu", run.task.outputs)
        rows, _ = split_rows(spec)
        data = run.task.train_data(rows.rows, rows.dataset, self.bundle, spec.data, spec.train)
        self.examples = data.examples
        self.adapter = run.method.attach(self.bundle, [], 0)

    def ours(self) -> tuple[float, float]:
        """Median seconds of a step of the training loop, and the share of its time spent waiting for data."""
        ticks, result = [time.perf_counter()], TrainResult()
        with tempfile.TemporaryDirectory() as folder:
            fit(
                self.bundle,
                self.adapter,
                self.method,
                self.task,
                self.examples,
                self.settings,
                0,
                checkpoint_file=Path(folder) / "checkpoint",
                log=lambda _: ticks.append(time.perf_counter()),
                result=result,
            )
        return median(b - a for a, b in pairwise(ticks[1:])), result.waited_s / (ticks[-1] - ticks[0])

    def bare(self, ready_made: bool) -> float:
        """Median seconds of the least a step can be: forward, backward, clip, AdamW.

        Args:
            ready_made: whether batches are made before the clock starts.
        """
        parameters = list(self.adapter.trained().values())
        decay, lr = self.settings.weight_decay, self.settings.lr
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
        size = self.settings.batch_size
        picked = [batch_indices(step, size, len(self.examples), 0) for step in range(self.steps)]
        batches = ([self.examples[i] for i in indices] for indices in picked)
        batches = (self.task.collate(batch, self.bundle) for batch in batches)
        waiting = iter(list(batches) if ready_made else batches)
        self.bundle.module.train()
        seconds = []
        for _ in range(self.steps):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bf16"):
                loss_sum, count = self.task.loss(self.bundle.module, next(waiting))
            (loss_sum / count).backward()
            if self.settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss_sum.item()
            seconds.append(time.perf_counter() - start)
        return median(seconds)
