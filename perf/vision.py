"""Images per second of a training step against a bare PyTorch loop on the same model, and the wait for data.

Blocks of both loops alternate in one process, so that drift of the machine cancels. The pocket model sees generated
images; `photographs=<folder of the archive>` adds real ones, and the time that decoding them takes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from eva_bench import models
from eva_bench.assets.catalogue import load_rows
from eva_bench.records.store import Store
from eva_bench.run import pipeline
from eva_bench.run.prepare import prepare
from eva_bench.run.session import Session
from eva_bench.run.train import TrainResult, batch_indices, fit
from eva_bench.settings.compose import compose_spec
from eva_bench.system.signals import StopSignal
from perf import page
from tasks import images

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("lora", "full")
STEPS, BLOCKS = 40, 5


class Setting:
    """A pocket run that is ready to train."""

    def __init__(self, method: str):
        self.spec = compose_spec([f"method={method}", "task=vtab1k/dtd", "tracking=off", f"train.steps={STEPS}"])
        run = prepare(self.spec, Session(StopSignal()), Store(self.spec.where.results_dir))
        pipeline.seed_everything(self.spec)
        self.task, self.method = run.task, run.method
        self.bundle = models.load(self.spec.model, self.spec.data, "cpu", run.task.outputs)
        rows = load_rows("pocket/vtab1k/dtd", "train")
        self.examples = run.task.train_data(rows, "vtab1k/dtd", self.bundle, self.spec.data, self.spec.train).examples
        self.adapter = run.method.attach(self.bundle, [], 0)

    def ours(self) -> tuple[float, float]:
        """Median seconds of a step of the training loop, and the share of it spent waiting for data."""
        ticks, result = [time.perf_counter()], TrainResult()
        with tempfile.TemporaryDirectory() as folder:
            fit(
                self.bundle, self.adapter, self.method, self.task, self.examples, self.spec.train, 0,
                checkpoint_file=Path(folder) / "c", log=lambda _: ticks.append(time.perf_counter()), result=result,
            )  # fmt: skip
        return median(b - a for a, b in pairwise(ticks[1:])), result.waited_s / (ticks[-1] - ticks[0])

    def bare(self) -> float:
        """Median seconds of the least a step can be, its batches ready-made: forward, backward, clip, AdamW."""
        train, seconds = self.spec.train, []
        parameters = list(self.adapter.trained().values())
        optimizer = torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay, fused=True)
        picked = [batch_indices(step, train.batch_size, len(self.examples), 0) for step in range(STEPS)]
        batches = [self.task.collate([self.examples[i] for i in indices], self.bundle) for indices in picked]
        self.bundle.module.train()
        for batch in batches:
            start = time.perf_counter()
            F.cross_entropy(self.bundle.module(batch["x"]), batch["labels"]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - start)
        return median(seconds)


def measure(photographs: str | None = None) -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    figures: dict[str, dict] = {}
    for method in METHODS:
        setting = Setting(method)
        size = setting.spec.train.batch_size
        blocks = [(setting.bare(), *setting.ours()) for _ in range(BLOCKS)][1:]  # the first one warms up
        bare, ours, waited = (median(values) for values in zip(*blocks, strict=True))
        ratio = median(b / o for b, o, _ in blocks)
        figures |= {
            f"{method}: training step": {"value": round(size / ours), "unit": "images/s", "target": "-"},
            f"{method}: bare PyTorch loop": {"value": round(size / bare), "unit": "images/s", "target": "-"},
            f"{method}: training step / bare loop": {"value": round(ratio, 3), "unit": "x", "target": ">= 0.9"},
            f"{method}: wait for data": {"value": round(100 * waited, 2), "unit": "% of training", "target": "<= 10"},
        }
    if photographs:
        figures |= _decoding(photographs)
    return figures


def _decoding(root: str) -> dict[str, dict]:
    """Photographs decoded and resized to 224 pixels, here and in two worker processes."""
    paths = [row["image"] for row in load_rows("vtab1k/caltech101", "train_validation", root)]
    rates = {}
    for workers in (0, 2):
        start = time.perf_counter()
        for _ in images.stream(paths, 224, "bicubic", 64, workers):
            pass
        rates[workers] = len(paths) / (time.perf_counter() - start)
    return {
        f"decoding photographs, {workers or 'no'} worker processes": {"value": round(rate), "unit": "images/s", "target": "-"}
        for workers, rate in rates.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, write results/bench/vision.{json,md}, print the table."""
    given = dict(item.split("=", 1) for item in (sys.argv[1:] if arguments is None else arguments))
    folder = Path(given.get("out", page.FOLDER))
    page.write("vision", "Vision: speed of training, wait for data", measure(given.get("photographs")), folder=folder)


if __name__ == "__main__":
    main()
