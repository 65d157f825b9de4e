"""What the initial factors of each method cost beside the passes through the model that they are made of.

Seconds are those that one thread computes, measured after a first time that does not count, so that other work
on the machine moves them little. Memory is the growth of the process's peak beside that of the passes alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from eva_bench import models
from eva_bench.assets.catalogue import load_rows
from eva_bench.methods.base import Method
from eva_bench.models.bundle import ModelBundle
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_settings, compose_spec, to_settings
from eva_bench.system.meter import Meter
from eva_bench.system.paths import choices
from eva_bench.system.progress import say
from eva_bench.task import Calibration, Task
from perf import page

TASK = "gsm8k"
TARGETS = {"lora_ga": 1.5, "lora_ga_peft": 1.5, "lora_one": 1.5, "corda_ipm": 1.5}  # times the passes


def calibrated() -> tuple[ModelBundle, Calibration]:
    """The pocket language model and its calibration batches."""
    spec = compose_spec(["method=lora", f"task={TASK}", "tracking=off"])
    task = build(spec.task, Task)
    bundle = models.load(spec.model, spec.data, "cpu", task.outputs)
    bundle.module.requires_grad_(False)
    dataset = spec.identity.train_data.name
    examples = task.train_data(load_rows(dataset, "train"), dataset, bundle, spec.data, spec.train).examples
    return bundle, Calibration(task, bundle, examples, spec.calibration, 0)


def passes(method: Method, bundle: ModelBundle, calibration: Calibration, batches: int) -> None:
    """As many passes as an initialisation reads batches: forwards, and backwards to the weights where it does that."""
    weights = [bundle.module.get_submodule(name).weight for name in bundle.targets]
    for weight in weights:
        weight.requires_grad_(method.uses_gradients)
    with torch.set_grad_enabled(method.uses_gradients):
        for batch in islice(calibration, batches):
            loss = calibration.loss(bundle.module, batch)
            if method.uses_gradients:
                torch.autograd.grad(loss, weights)
    bundle.module.requires_grad_(False)


def timed(work: Callable[[], object]) -> tuple[float, int]:
    """Seconds of computing, and the peak of resident memory."""
    meter = Meter()
    start = time.process_time()
    with meter.phase("work"):
        work()
    return time.process_time() - start, meter.phases["work"].peak_bytes


def row(name: str, bundle: ModelBundle, calibration: Calibration) -> dict[str, str]:
    """A line of the table."""
    settings = to_settings(compose_settings([f"method={name}", f"task={TASK}", "train.lr=1"]))
    method = build(settings.method, Method)
    facts = method.initialise(bundle, calibration, 0).facts  # warms up, too
    batches = int(facts.get("batches", 0)) if method.uses_data else 0
    seconds, peak = timed(lambda: method.initialise(bundle, calibration, 0))
    through, least = timed(lambda: passes(method, bundle, calibration, batches))
    line = {"method": name, "batches": str(batches or "-"), "seconds": f"{seconds:.2f}"}
    line["its passes alone, s"] = f"{through:.2f}" if batches else "-"
    line["times the passes"] = f"{seconds / through:.2f}" if batches else "-"
    line["target"] = f"<= {TARGETS[name]}" if name in TARGETS else "-"
    line["MB beside the passes"] = f"{max(0, peak - least) / 1e6:.0f}" if batches else "-"
    say(" ".join(line.values()))
    return line


def main(folder: Path = page.FOLDER) -> None:
    """Measure every method and write results/bench/start_up.{json,md}."""
    torch.set_num_threads(1)
    bundle, calibration = calibrated()
    rows = [row(name, bundle, calibration) for name in choices("method")]
    note = f"Pocket language model, {TASK}'s stand-in. {' '.join((__doc__ or '').split())}\n"
    note += "HRP's passes are without the steps of its optimiser."
    page.write_rows("start_up", "Start-up cost of the methods", rows, note, folder)


if __name__ == "__main__":
    main()
