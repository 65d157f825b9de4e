"""What a run costs: cold and repeated runs, tables, the training loop against a bare one, SORSA and SVFit steps."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from eva_bench.records.store import Store
from eva_bench.system.paths import RESULTS
from perf import page, process
from perf.training import Training

LIBRARIES = "import peft, torch; from transformers import AutoTokenizer, LlamaForCausalLM"
RUN = [sys.executable, "run.py", "method=eva", "task=gsm8k"]
STEPS, BLOCKS = 25, 4


def measure() -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    with tempfile.TemporaryDirectory() as folder:
        place = [f"results_dir={folder}/results", f"runs_dir={folder}/runs"]
        cold = process.run([*RUN, *place]).checked()
        assert "OK  gsm8k-eva-pocket" in cold.output, cold.output
        (record,) = Store(Path(folder) / "results").read_all()
        again = process.run([*RUN, *place]).checked()
        assert "already done" in again.output, again.output
        tables = process.run([sys.executable, "-m", "eva_bench.reporting.tables", f"results_dir={RESULTS}"]).checked()
    helped = [process.run([sys.executable, "run.py", "--help"]).checked().seconds for _ in range(3)]
    imported = "import sys, eva_bench.reporting.tables; sys.exit('torch' in sys.modules)"
    torch_free = process.run([sys.executable, "-c", imported])
    libraries = process.run([sys.executable, "-c", LIBRARIES]).checked()
    runs = {name: Training(name, "gsm8k", STEPS) for name in ("lora", "sorsa", "svfit")}
    bare = Training("lora", "gsm8k", STEPS)
    loops: dict[str, list[float]] = {name: [] for name in ("bare", *runs)}
    for _ in range(BLOCKS):  # side by side, so that drift cancels
        loops["bare"].append(bare.bare(ready_made=False))
        for name, run in runs.items():
            loops[name].append(run.ours()[0])
    return {
        "cold run of method=eva task=gsm8k": page.figure(round(cold.seconds, 1), "s", "<= 20"),
        "of it outside training, evaluation and initialisation": page.figure(
            round(cold.seconds - page.work(record.costs), 1), "s", "<= 2"
        ),
        "importing torch, transformers and peft alone": page.figure(round(libraries.seconds, 1), "s"),
        "run.py --help": page.figure(round(median(helped), 2), "s", "<= 0.7"),
        "its peak memory": page.figure(round(cold.peak_bytes / 1e9, 2), "GB", "<= 2.5"),
        "the same command again": page.figure(round(again.seconds, 1), "s", "<= 5"),
        "make tables": page.figure(round(tables.seconds, 2), "s", "<= 3"),
        "make tables imports torch": page.figure(torch_free.code, "(0 is no)", "0"),
        "training step / bare PyTorch loop": _ratio(loops, "lora", "bare", 1.10),
        "SORSA step / LoRA step": _ratio(loops, "sorsa", "lora", 1.15),
        "SVFit step / LoRA step": _ratio(loops, "svfit", "lora", 1.15),
    }


def _ratio(loops: dict[str, list[float]], name: str, base: str, target: float) -> dict:
    """Median over blocks of the ratio of two median step times measured next to each other."""
    ratios = [a / b for a, b in zip(loops[name], loops[base], strict=True)]
    blocks = [round(ratio, 3) for ratio in ratios]
    return page.figure(round(median(ratios), 3), "x", f"<= {target}", blocks=blocks)


def main() -> None:
    """Measure, write results/bench/core.{json,md}, print the table."""
    page.write("core", "What a run costs", measure())


if __name__ == "__main__":
    main()
