"""`plan=true` against the memory that tensors take, for two steps of training and a batch of evaluation.

Measured is what `torch.cuda.max_memory_allocated` counts on a GPU, here by torch's profiler on the CPU: the bytes of
weights and of all that torch's allocator holds at one time, its kernels' scratch memory included, libraries and the
allocator's own reserve not. It says whether a run fits a GPU, and is the same on every machine. The work is that of a
run: the training loop and the loss on reference answers, on examples of the longest length, and for language models
one batch of generated answers. Models that are on the hub only have random weights here; EVA_BENCH_DATA names the
folder of the two others that the repository does not carry.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from eva_bench import models
from eva_bench.methods.base import Method
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.recomputation import recomputed
from eva_bench.run import plan_cost, train
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_settings, to_settings
from eva_bench.settings.schema import Settings
from eva_bench.task import Example, Task, loss_sum
from perf import page, shapes

POCKET = "data.max_length=128 train.micro_batch_size=16 train.batch_size=32 eval.max_new_tokens=16"
LLAMA = "task=math scale=paper data.max_length=128 train.micro_batch_size=2 train.batch_size=4 eval.batch_size=4"
LLAMA += " eval.max_new_tokens=16"
SMALLER = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8}
SMALLER |= {"num_key_value_heads": 8, "vocab_size": 8192}
RUNS = {
    "pocket language": f"task=gsm8k {POCKET}",
    "pocket encoder": "task=glue/rte data.max_length=64 train.micro_batch_size=32 train.batch_size=64",
    "pocket vision": "task=vtab1k/dtd train.micro_batch_size=50 train.batch_size=100",
    "pocket decision": "task=metaworld/push train.micro_batch_size=64 train.batch_size=128",
    "all-MiniLM-L6-v2": "task=glue/rte scale=small train.micro_batch_size=16 train.batch_size=32"
    " model.path={models}/sentence-transformers/all-MiniLM-L6-v2",
    "stories260K": f"task=gsm8k {POCKET} model.path={{models}}/stories260K",
    "SmolLM2-135M, random": "task=gsm8k scale=lite data.max_length=128 train.micro_batch_size=2 train.batch_size=4"
    " eval.batch_size=2 eval.max_new_tokens=16",
    "small Llama, random": LLAMA,
    "small Llama, random, float32": f"{LLAMA} train.precision=float32",
    "small Llama, random, recomputed": f"{LLAMA} train.gradient_checkpointing=true",
}
METHODS = ("lora", "full")
WITHIN = 0.25


class AllocatedBytes:
    """Peak of the bytes that torch's CPU allocator holds, beyond what it held when the block began."""

    peak = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what happens inside the block."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as profiler:
            yield
        events = profiler.profiler.kineto_results.events()
        self.peak = max(accumulate(event.nbytes() for event in events if event.name() == "[memory]"), default=0)


def settings_of(run: str, method: str) -> Settings:
    """The settings of one of the runs."""
    here = Path(os.environ.get("EVA_BENCH_DATA", "")) / "models"
    line = [f"method={method}", *RUNS[run].format(models=here).split()]
    settings = to_settings(compose_settings([*line, f"train.lr={1e-4}", "train.steps=2"]))
    if "small Llama" not in run:
        return settings
    shape = {**(settings.model.architecture or {}), **SMALLER}
    model = settings.model.model_copy(update={"hub_id": "shapes/small", "architecture": shape})
    return settings.model_copy(update={"model": model})


def load(settings: Settings, task: Task) -> ModelBundle:
    """The model; one of the hub has random weights."""
    if settings.model.path:
        return models.load(settings.model, settings.data, "cpu", task.outputs)
    bundle = shapes.random_language(settings.model, "cpu")
    bundle.processor = SimpleNamespace(pad_token_id=0)
    return bundle


def longest_examples(settings: Settings, bundle: ModelBundle) -> list[Example]:
    """A full batch of examples as long as a plan assumes them."""
    count = max(settings.train.batch_size, settings.eval.batch_size)
    config = getattr(bundle.module, "config", None)
    length, pixels = plan_cost.example_length(settings, config), settings.data.image_size or 0
    tokens = {"input_ids": [3] * length}
    example: Example = {
        "language": lambda: tokens | {"labels": [3] * length},
        "classifier": lambda: tokens | {"token_type_ids": [0] * length, "label": 0},
        "vision": lambda: {"pixels": torch.zeros(3, pixels, pixels, dtype=torch.uint8), "label": 0},
        "decision": lambda: {
            "states": np.zeros((length, config.state_size), np.float32),
            "returns": np.zeros(length, np.float32),
            "actions": np.zeros((length, config.action_size), np.float32),
            "rewards": np.zeros(length, np.float32),
            "steps": np.arange(length),
        },
    }[bundle.kind]()
    return count * [example]


def measured(settings: Settings) -> dict[str, int]:
    """Peak bytes of training and of evaluation."""
    method, task = build(settings.method, Method), build(settings.task, Task)
    bundle = load(settings, task)
    adapter = method.attach(bundle, [], 0)
    held = {t.untyped_storage().data_ptr(): t.nbytes for t in (*bundle.module.parameters(), *bundle.module.buffers())}
    examples = longest_examples(settings, bundle)
    watch = {"training": AllocatedBytes(), "evaluation": AllocatedBytes()}
    recompute = recomputed(bundle.module, settings.train.gradient_checkpointing)
    with tempfile.TemporaryDirectory() as folder, watch["training"].watching(), recompute:
        file = Path(folder) / "checkpoint"
        train.fit(bundle, adapter, method, task, examples, settings.train, 0, checkpoint_file=file)
    bf16 = settings.eval.precision == "bf16"
    with watch["evaluation"].watching(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss_sum(task, bundle, examples[: settings.eval.batch_size], settings.eval.batch_size)
        if bundle.kind == "language":
            shapes.answer(settings, bundle)
    return {name: sum(held.values()) + found.peak for name, found in watch.items()}


@dataclass(frozen=True)
class Comparison:
    """Planned and measured peak of one phase of one run, in bytes."""

    run: str
    method: str
    phase: str
    planned: int
    measured: int

    @property
    def ratio(self) -> float:
        """Planned over measured."""
        return self.planned / self.measured


def compare(run: str, method: str) -> list[Comparison]:
    """What the plan says of a run, and what was measured."""
    settings = settings_of(run, method)
    cost, found = plan_cost.cost_of(settings), measured(settings)
    planned = {"training": cost.training, "evaluation": cost.evaluation}
    return [Comparison(run, method, phase, planned[phase], found[phase]) for phase in planned]


def main(folder: Path = page.FOLDER) -> None:
    """Compare all runs and write results/bench/plan.{json,md}."""
    rows = []
    for run in RUNS:
        for method in METHODS:
            for found in compare(run, method):
                row = {"run": f"{run}, {method}", "phase": found.phase, "planned, MB": f"{found.planned / 1e6:.1f}"}
                row |= {"measured, MB": f"{found.measured / 1e6:.1f}", "planned / measured": f"{found.ratio:.2f}"}
                rows.append(row)
                print(row, flush=True)
    note = f"Wanted: between {1 - WITHIN:.2f} and {1 + WITHIN:.2f}. {' '.join((__doc__ or '').split())}"
    page.write_rows("plan", "`plan=true` against measured memory", rows, note, folder)


if __name__ == "__main__":
    main()
