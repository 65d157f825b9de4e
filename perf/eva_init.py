"""EVA's initialisation against PEFT's, against bare forward passes, and how it grows; truncated SVDs against PEFT's.

Both sides of a ratio run in turn in one process, figures are medians. Seconds are those that one thread computes, so
that other work on the machine moves them little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

from eva_bench.eva import SolverConfig, compute_subspaces, redistribute_ranks
from eva_bench.eva.inputs import InputTap
from eva_bench.eva.reader import BF16_WIDTH
from eva_bench.methods.svd import truncated_svd
from eva_bench.system.processes import keep_freed_memory
from perf.eva_models import Batches, load_pretrained, random_llama

OUT = Path(__file__).resolve().parent.parent / "results" / "bench"
RANK, RHO = 16, 2
PEFT_LIMIT = 250  # forward passes after which we end PEFT's loop, which has no limit of its own


class DidNotStop(RuntimeError):
    """PEFT's loop went past PEFT_LIMIT forward passes."""


def timed(work: Callable) -> tuple[float, object]:
    """Seconds of computing and result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def in_turn(repeats: int, **works: Callable) -> dict[str, float]:
    """Median seconds of each piece of work, run one after the other so that drift hits all alike."""
    runs = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            runs[name].append(timed(work)[0])
    return {name: median(times) for name, times in runs.items()}


def linear_layers(model: nn.Module) -> list[str]:
    """All linear layers but heads and poolers."""
    skipped = ("lm_head", "pooler", "classifier")
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not any(s in n for s in skipped)]


def peft_eva(model: nn.Module, targets: list[str], batches: Batches, rank: int) -> tuple[dict[str, torch.Tensor], int]:
    """PEFT's A per layer, and the number of forward passes it made."""
    from peft import EvaConfig, LoraConfig
    from peft.tuners.lora.eva import get_eva_state_dict

    passes = 0

    def forward(model, batch):
        nonlocal passes
        passes += 1
        if passes > PEFT_LIMIT:
            raise DidNotStop
        return model(**batch)

    config = LoraConfig(
        r=rank, target_modules=targets, init_lora_weights="eva", eva_config=EvaConfig(rho=RHO, use_label_mask=False)
    )
    return get_eva_state_dict(model, batches, config, forward_fn=forward, show_progress_bar=False), passes


def our_eva(model: nn.Module, targets: list[str], batches: Batches, rank: int, **options):
    """Our A per layer, and the result it comes from."""
    share_out = partial(redistribute_ranks, rank=rank, rho=RHO)
    widths = {name: min(model.get_submodule(name).weight.shape) for name in targets}
    components = {name: min(rank * RHO, width) for name, width in widths.items()}
    result = compute_subspaces(
        model, targets, batches, components=components, ranks=share_out, config=SolverConfig(**options)
    )
    ranks = share_out(result.layers)
    return {name: layer.components[: ranks[name]] for name, layer in result.layers.items()}, result


def covariances(model: nn.Module, targets: list[str], batches: Batches) -> dict[str, torch.Tensor]:
    """Covariance of each layer's input over all positions that are not padding, summed in float64."""
    sums: dict[str, list] = {}
    with InputTap(model, targets) as tap:
        for batch in batches:
            kept = batch["attention_mask"].bool()

            def take(name, x, kept=kept):
                rows = x[kept]
                count, total, square = sums.get(name, (0, 0, 0))
                sums[name] = count + len(rows), total + rows.sum(0).double(), square + (rows.T @ rows).double()

            tap.run(lambda batch=batch: model(**batch), take)
    moments = {n: (square - torch.outer(t, t) / c) / (c - 1) for n, (c, t, square) in sums.items()}
    return {name: moments[tap.groups[name]] for name in targets}


class Quality:
    """Captured variance of rows of A over the best possible at the same ranks, on all batches, in float64."""

    def __init__(self, moments: dict[str, torch.Tensor]):
        self.moments = moments
        values = {id(matrix): torch.linalg.eigvalsh(matrix).flip(0) for matrix in moments.values()}
        self.best = {name: values[id(matrix)] for name, matrix in moments.items()}

    def __call__(self, rows_of_A: dict[str, torch.Tensor]) -> tuple[float, float]:
        """In total, each layer by its share of variance, and on the worst layer."""
        have = best = 0.0
        worst = 1.0
        for name, matrix in self.moments.items():
            rows, total = rows_of_A[name].double(), float(matrix.trace())
            captured, possible = float((rows @ matrix * rows).sum()), float(self.best[name][: len(rows)].sum())
            have, best = have + captured / total, best + possible / total
            if len(rows):
                worst = min(worst, captured / possible)
        return have / best, worst


def against_peft(name: str, model: nn.Module, batches: Batches, quality: Quality, repeats: int) -> dict:
    """Time, captured variance in total and on the worst layer, of both, on the same batches in one process."""
    targets = linear_layers(model)
    rank = min(RANK, min(min(model.get_submodule(t).weight.shape) for t in targets) // RHO)
    bf16 = max(model.get_submodule(t).weight.shape[1] for t in targets) >= BF16_WIDTH
    row: dict = {"model": name, "layers": len(targets)}
    bare_passes(model, targets, batches[:4], bf16)  # warm up
    ours_s, peft_s, bare_s = [], [], []
    initialise_ours, initialise_peft = (partial(eva, model, targets, batches, rank) for eva in (our_eva, peft_eva))
    try:
        for _ in range(repeats):
            seconds, (ours, result) = timed(initialise_ours)
            ours_s.append(seconds)
            seconds, (peft, passes) = timed(initialise_peft)
            peft_s.append(seconds)
            ours_s.append(timed(initialise_ours)[0])
            bare = partial(bare_passes, model, targets, batches[: result.batches], bf16)
            bare_s.append(timed(bare)[0])
    except DidNotStop:
        return row | {"peft_passes": f"more than {PEFT_LIMIT}"}
    (ours_total, ours_worst), (peft_total, peft_worst) = quality(ours), quality(peft)
    return row | {
        "peft_s": median(peft_s), "ours_s": median(ours_s), "ours_min_s": min(ours_s),
        "peft_over_ours": median(peft_s) / median(ours_s), "bare_s": median(bare_s), "peft_passes": passes,
        "our_batches": result.batches, "of_batches": len(batches), "solver": result.solver, "gap": result.gap,
        "captured_peft": peft_total, "captured_ours": ours_total, "worst_peft": peft_worst, "worst_ours": ours_worst,
    }  # fmt: skip


def bare_passes(model: nn.Module, targets: list[str], batches: Batches, bf16: bool) -> None:
    """The same forward passes, stopped at the same layer, with nothing computed from them."""
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=bf16)
    with InputTap(model, targets) as tap:
        for batch in batches:
            tap.run(lambda batch=batch: model(**batch), lambda *_: None, autocast)


def over_forward(
    width: int, layers: int, bf16: bool, count: int, repeats: int, rank: int = RANK, rows=(16, 128)
) -> dict:
    """Initialisation over bare forward passes on the same batches at the same precision (random weights)."""
    model, batches = random_llama(width, layers, count, rows)
    targets = linear_layers(model)
    options = {"autocast": bf16, "tolerance": 0}  # never stops early: both sides read every batch
    _, result = our_eva(model, targets, batches, rank, **options)
    seconds = in_turn(
        repeats,
        bare=lambda: bare_passes(model, targets, batches, bf16),
        ours=lambda: our_eva(model, targets, batches, rank, **options),
    )
    return {
        "width": width, "layers": layers, "batches": count, "rows": result.rows, "rank": rank, "bf16": bf16,
        "solver": result.solver, "seconds": seconds["ours"], "bare_s": seconds["bare"],
        "over_forward": seconds["ours"] / seconds["bare"],
    }  # fmt: skip


def growth(sizes: int, repeats: int) -> dict[str, list[dict]]:
    """Seconds at four sizes of each: rows, width, rank, layers; everything else fixed."""
    run = partial(over_forward, bf16=False, repeats=repeats)
    return {
        "rows": [run(width=384, layers=2, count=n) for n in (8, 16, 32, 64)[:sizes]],
        "width": [run(width=w, layers=1, count=8) for w in (256, 512, 1024, 1536)[:sizes]],
        "rank": [run(width=384, layers=2, count=16, rank=r) for r in (4, 8, 16, 32)[:sizes]],
        "layers": [run(width=384, layers=n, count=16) for n in (1, 2, 4, 8)[:sizes]],
    }


def svd_against_peft(side: int, rank: int, decay: float, repeats: int) -> dict:
    """Time and residual of truncated_svd over those of svd_lowrank as PEFT's pissa_niter_16 calls it."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(side, side, generator=generator)).Q for _ in "lr")
    matrix = left * torch.arange(1, side + 1).pow(-decay) @ right.T

    def residual(u, s, v) -> float:
        return float((matrix - u * s @ v).norm() / matrix.norm())

    u, s, v = torch.svd_lowrank(matrix, q=rank, niter=16)
    seconds = in_turn(
        repeats,
        ours=lambda: truncated_svd(matrix, rank),
        peft=lambda: torch.svd_lowrank(matrix, q=rank, niter=16),
    )
    return {
        "side": side, "rank": rank, "decay": decay, "ours_over_peft": seconds["ours"] / seconds["peft"],
        "residual_ours": residual(*truncated_svd(matrix, rank)), "residual_peft": residual(u, s, v.T),
    }  # fmt: skip


def measure_peft(quick: bool, name: str) -> list[dict]:
    """Against PEFT on one model, without and then with the allocator setting of runs."""
    loaded = load_pretrained(name)
    if loaded is None:
        print(f"{name} is not at hand (data/models): its rows are left out")
        return []
    model, batches = loaded
    quality = Quality(covariances(model, linear_layers(model), batches))
    rows = []
    for kept in (False, True):
        if kept:
            keep_freed_memory()  # as every run of the suite does
        row = against_peft(name, model, batches, quality, repeats=1 if quick or name == "minilm" else 3)
        rows.append({"freed memory": "kept" if kept else "returned"} | row)
    return rows


def measure_forward(quick: bool) -> list[dict]:
    """Over bare forward passes."""
    keep_freed_memory()
    cases = [(64, 1, 3)] if quick else [(384, 4, 24), (512, 2, 24), (2048, 1, 12)]  # width, layers, batches
    return [
        over_forward(width, layers, bf16, count, 1 if quick else 3)
        for width, layers, count in cases
        for bf16 in (False, True)
    ]


def measure_growth(quick: bool) -> dict[str, list[dict]]:
    """Seconds by size."""
    keep_freed_memory()
    return growth(1 if quick else 4, 1)


def measure_svd(quick: bool) -> list[dict]:
    """Truncated SVDs."""
    return [
        svd_against_peft(side, rank, decay, 5)
        for side in ((128,) if quick else (128, 768, 2048))
        for rank in ((16,) if quick else (16, 64, 128))
        if rank < side
        for decay in (0.3, 1.0)
    ]


PARTS = {
    **{f"against_peft_{name}": partial(measure_peft, name=name) for name in ("minilm", "pocket", "stories260K")},
    "over_forward": measure_forward,
    "growth": measure_growth,
    "svd": measure_svd,
}


def main(quick: bool = False, out: Path = OUT, parts: Sequence[str] = tuple(PARTS)) -> None:
    """Measure each part in a process of its own and enter it in eva_init.json, .md and .svg."""
    for part in parts:
        command = [sys.executable, "-m", "perf.eva_init", part, "--out", str(out), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True)


def measure(part: str, quick: bool, out: Path) -> None:
    """Measure one part and enter it in the files."""
    from perf.eva_report import draw_growth, write_markdown

    torch.set_num_threads(1)
    file = out / "eva_init.json"
    measured = json.loads(file.read_text()) if file.exists() else {}
    figures = {name: measured[name] for name in PARTS if name in measured}
    figures["machine"] = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    figures[part] = PARTS[part](quick)
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1) + "\n")
    write_markdown(figures, out / "eva_init.md")
    if part == "growth":
        draw_growth(figures["growth"], out / "eva_init.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="all if none is named")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it runs")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.part:
        measure(arguments.part, arguments.quick, arguments.out)
    else:
        main(arguments.quick, arguments.out)
