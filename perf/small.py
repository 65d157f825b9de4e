"""A step of scale=small against a bare PyTorch loop and against float32, and what EVA's initialisation adds to a run.

Blocks of the loops alternate in one process, so that drift of the machine cancels. EVA_BENCH_DATA names the folder with
the model and the data; without it nothing is measured.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from eva_bench.records.store import Store
from perf import page, process
from perf.training import Training

TASK, MODEL = "glue/rte", "sentence-transformers/all-MiniLM-L6-v2"
STEPS, BLOCKS = 12, 5
NOTE = "RTE in batches of 16 on all-MiniLM-L6-v2, two threads. `python -m perf.small`"


def measure(data: str) -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    given = ["scale=small", f"model.path={data}/models/{MODEL}", f"data.root={data}/hub"]
    half = Training("lora", TASK, STEPS, [*given, "train.epochs=null"])
    single = Training("lora", TASK, STEPS, [*given, "train.epochs=null", "train.precision=float32"])
    blocks = [(half.bare(ready_made=True), half.ours()[0], single.ours()[0]) for _ in range(BLOCKS + 1)][1:]  # warm
    bare, ours, float32 = (median(values) for values in zip(*blocks, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        place = [f"results_dir={folder}/results", f"runs_dir={folder}/runs", "tracking=off"]
        whole = process.run([sys.executable, "run.py", "method=eva", f"task={TASK}", *given, *place]).checked()
        (record,) = Store(Path(folder) / "results").read_all()
    costs = {phase: cost.seconds for phase, cost in record.costs.items()}
    return {
        "step of LoRA, bf16": page.figure(round(ours, 3), "s"),
        "step of a bare PyTorch loop, bf16": page.figure(round(bare, 3), "s"),
        "speed of a step / bare loop": page.figure(round(median(b / o for b, o, _ in blocks), 3), "x", ">= 0.95"),
        "step of LoRA, float32": page.figure(round(float32, 3), "s"),
        "float32 / bf16": page.figure(round(median(f / o for _, o, f in blocks), 2), "x"),
        "run of EVA, whole": page.figure(round(whole.seconds, 1), "s", "<= 150"),
        "EVA's initialisation / training": page.figure(round(costs["init"] / costs["train"], 3), "x", "<= 0.1"),
    }


def main() -> None:
    """Measure, write results/bench/small.{json,md}, print the table."""
    if data := os.environ.get("EVA_BENCH_DATA"):
        page.write("small", "A run on real GLUE", measure(data), NOTE)
    else:
        print("scale=small is not measured: EVA_BENCH_DATA does not name a folder with its model and data")


if __name__ == "__main__":
    main()
