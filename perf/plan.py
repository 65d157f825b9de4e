"""`plan=true` against measured memory: two steps of training and a batch of evaluation, each in a process of its own.

Measured is the growth of resident memory over what the process had before the model was loaded, with an allocator that
gives every larger block back at once. Inputs have the length and the batch that the plan assumes.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import torch

from eva_bench import models
from eva_bench.run import plan_cost
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_settings, to_settings
from eva_bench.settings.schema import Settings
from eva_bench.system import meter
from eva_bench.task import Task
from perf import page, process, shapes

RUNS = (
    "method=lora task=gsm8k train.micro_batch_size=32 data.max_length=128",
    "method=full task=gsm8k train.micro_batch_size=32 data.max_length=128",
    "method=lora task=glue/rte train.micro_batch_size=32 data.max_length=64",
    "method=lora task=vtab1k/dtd train.micro_batch_size=64",
    "method=lora task=metaworld/push train.micro_batch_size=64",
    "method=full task=metaworld/push train.micro_batch_size=64",
    "method=lora task=glue/rte scale=small train.micro_batch_size=16 data.max_length=128",
    "method=full task=glue/rte scale=small train.micro_batch_size=16 data.max_length=128",
    "method=lora task=gsm8k scale=lite train.micro_batch_size=2 data.max_length=256 eval.batch_size=2",
    "method=full task=gsm8k scale=lite train.micro_batch_size=2 data.max_length=256 eval.batch_size=2",
)
COMMON = ("train.precision=float32", "train.batch_size=128", "eval.max_new_tokens=8")
WITHIN = 0.25


def settings_of(run: str) -> Settings:
    """The settings of one of the runs."""
    language = COMMON if "gsm8k" in run else COMMON[:2]
    return to_settings(compose_settings([*run.split(), *language]))


def measured(settings: Settings) -> dict[str, int]:
    """Bytes by which training and evaluation make this process grow."""
    _warm_up()
    before = meter.peak_bytes()
    task = build(settings.task, Task)
    has_weights = settings.model.architecture is None or _is_here(settings)
    if has_weights:
        bundle = models.load(settings.model, settings.data, "cpu", task.outputs)
    else:
        bundle = shapes.random_language(settings.model, "cpu")
    adapter = plan_cost.adapter_of(settings, bundle)
    grown = {}
    for name, work in (("training", shapes.train_steps), ("evaluation", shapes.evaluate)):
        gc.collect()
        with (watch := meter.Meter()).phase(name):
            work(settings, bundle, adapter)
        grown[name] = watch.phases[name].peak_bytes - before
    return grown


def _is_here(settings: Settings) -> bool:
    from eva_bench.assets.identity import model_folder
    from eva_bench.system.errors import UserError

    try:
        return model_folder(settings.model).is_dir()
    except UserError:
        return False


def _warm_up() -> None:
    """Everything that is loaded at a first use."""
    layer = torch.nn.Linear(256, 256)
    optimiser = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(64, 256)).square().sum().backward()
    optimiser.step()


def compare(run: str) -> dict[str, str]:
    """A row of the table: what the plan says of a run, and what a process of its own measured."""
    cost = plan_cost.cost_of(settings_of(run))
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    finished = process.run([sys.executable, "-m", "perf.plan", run], environment).checked()
    grown = json.loads(finished.output.strip().splitlines()[-1])
    row = {"run": run.replace("train.micro_batch_size", "micro-batch").replace("data.max_length", "length")}
    for name, planned in (("training", cost.training), ("evaluation", cost.evaluation)):
        row[f"{name}: planned, MB"] = f"{planned / 1e6:.0f}"
        row[f"{name}: measured, MB"] = f"{grown[name] / 1e6:.0f}"
        row[f"{name}: planned / measured"] = f"{planned / grown[name]:.2f}"
    return row


def main(folder: Path = page.FOLDER) -> None:
    """Compare all runs and write results/bench/plan.{json,md}."""
    rows = [compare(run) for run in RUNS]
    note = f"Wanted: between {1 - WITHIN:.2f} and {1 + WITHIN:.2f}. {' '.join((__doc__ or '').split())}"
    page.write_rows("plan", "`plan=true` against measured memory", rows, note, folder)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(settings_of(sys.argv[1]))))
    else:
        main()
