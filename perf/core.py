"""What a run costs: cold and repeated runs, tables, the training loop against a bare one, SORSA and SVFit steps."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from perf import page

ROOT = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "run.py", "method=eva", "task=gsm8k"]
STEPS, BLOCKS = 25, 4


def measure() -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    with tempfile.TemporaryDirectory() as folder:
        place = [f"results_dir={folder}/results", f"runs_dir={folder}/runs"]
        cold, cold_bytes, text = _command([*RUN, *place])
        assert "OK  gsm8k-eva-pocket" in text, text
        again, _, text = _command([*RUN, *place])
        assert "already done" in text, text
        tables, _, _ = _command([sys.executable, "-m", "eva_bench.reporting.tables", f"results_dir={ROOT / 'results'}"])
    torch_free = subprocess.run(
        [sys.executable, "-c", "import sys, eva_bench.reporting.tables; sys.exit('torch' in sys.modules)"], cwd=ROOT
    )
    names = ("bare", "lora", "sorsa", "svfit")
    blocks = [{name: _block(name) for name in names} for _ in range(BLOCKS)]  # side by side, so that drift cancels
    loops = {name: [block[name] for block in blocks] for name in names}
    return {
        "cold run of method=eva task=gsm8k": {"value": round(cold, 1), "unit": "s", "target": "<= 60"},
        "its peak memory": {"value": round(cold_bytes / 1e9, 2), "unit": "GB", "target": "<= 2.5"},
        "the same command again": {"value": round(again, 1), "unit": "s", "target": "<= 5"},
        "make tables": {"value": round(tables, 2), "unit": "s", "target": "<= 3"},
        "make tables imports torch": {"value": torch_free.returncode, "unit": "(0 is no)", "target": "0"},
        "training step / bare PyTorch loop": _ratio(loops, "lora", "bare", 1.10),
        "SORSA step / LoRA step": _ratio(loops, "sorsa", "lora", 1.15),
        "SVFit step / LoRA step": _ratio(loops, "svfit", "lora", 1.15),
    }


def _ratio(loops: dict[str, list[float]], name: str, base: str, target: float) -> dict:
    """Median over blocks of the ratio of two median step times measured next to each other."""
    ratios = [a / b for a, b in zip(loops[name], loops[base], strict=True)]
    blocks = [round(ratio, 3) for ratio in ratios]
    return {"value": round(median(ratios), 3), "unit": "x", "target": f"<= {target}", "blocks": blocks}


def _command(command: list[str]) -> tuple[float, int, str]:
    """Wall seconds, peak resident bytes and output of one command started cold."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"WANDB_MODE": "offline"})
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, done.stdout


_made: dict[str, tuple] = {}


def _setting(name: str) -> tuple:
    """Specification, run, bundle, adapter and examples of a pocket run, made once per name."""
    from eva_bench import models
    from eva_bench.records.store import Store
    from eva_bench.run import pipeline
    from eva_bench.run.prepare import prepare
    from eva_bench.run.session import Session
    from eva_bench.settings.compose import compose_spec
    from eva_bench.system.signals import StopSignal

    if name not in _made:
        method = "lora" if name == "bare" else name
        spec = compose_spec([f"method={method}", "task=gsm8k", "tracking=off", f"train.steps={STEPS}"])
        run = prepare(spec, Session(StopSignal()), Store(spec.where.results_dir))
        pipeline.seed_everything(spec)
        bundle = models.load(spec.model, spec.data, "cpu")
        rows = pipeline.load_rows("pocket/gsm8k", "train")
        data = run.task.train_data(rows, "pocket/gsm8k", bundle, spec.data, spec.train)
        _made[name] = (spec, run, bundle, run.method.attach(bundle, [], 0), data.examples)
    return _made[name]


def _block(name: str) -> float:
    """Median seconds of a step over one block of steps."""
    from eva_bench.run.train import fit

    spec, run, bundle, adapter, examples = _setting(name)
    if name == "bare":
        return median(_bare_loop(spec, run, bundle, adapter, examples))
    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            bundle, adapter, run.method, run.task, examples, spec.train, 0,
            checkpoint_file=Path(folder) / "c", log=lambda _: ticks.append(time.perf_counter()),
        )  # fmt: skip
    return median(b - a for a, b in pairwise(ticks))


def _bare_loop(spec, run, bundle, adapter, examples) -> list[float]:
    """The least a training step can be: collate, forward, backward, clip, AdamW, on the same batches."""
    import torch

    from eva_bench.run.train import batch_indices

    train = spec.train
    parameters = list(adapter.trained().values())
    optimizer = torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay, fused=True)
    bundle.module.train()
    seconds = []
    for step in range(STEPS):
        indices = batch_indices(step, train.batch_size, len(examples), 0)
        start = time.perf_counter()
        loss_sum, count = run.task.loss(bundle.module, run.task.collate([examples[i] for i in indices], bundle))
        (loss_sum / count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss_sum.item()
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure, write results/bench/core.{json,md}, print the table."""
    page.write("core", "What a run costs", measure())


if __name__ == "__main__":
    main()
