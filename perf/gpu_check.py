"""`make gpu-check`: ten minutes on one GPU, without network, that say whether the paper's models work there.

Models of the paper's shapes with random weights: time and memory of EVA's and PiSSA's initialisation, of steps of
training and of generated answers, in bf16 autocast and in float32, beside what `plan=true` says; and EVA's engine on
the GPU against the CPU. `shrink=true` rehearses all of it with tiny shapes, on a machine without a GPU too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pydantic import Field

from eva_bench.eva import SolverConfig, compute_subspaces
from eva_bench.methods.base import Method
from eva_bench.models.bundle import ModelBundle
from eva_bench.run import plan, plan_cost
from eva_bench.run.memory import out_of_memory, release
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_settings, to_settings
from eva_bench.settings.schema import Settings
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.meter import Meter
from perf import page, shapes

MODELS = ("llama2_7b", "llama3_1_8b", "gemma2_9b")
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
SHORT = ("train.micro_batch_size=1", "train.batch_size=2", "data.max_length=512", "eval.batch_size=8")
SHORT += ("eval.max_new_tokens=32", "method.min_batches=16", "method.max_batches=16")
BATCHES, ROWS = 16, 16  # of calibration, as many rows a batch as in the recipe
FIGURES = ("seconds", "peak, GB", "plan, GB", "plan / peak")
OVERLAP = 0.999  # mean squared cosine of the directions of both devices


class GpuCheck(Arguments):
    """Check this machine's GPU with models of the paper's shapes and random weights."""

    shrink: bool = Field(False, description="tiny shapes, on the CPU where there is no GPU; nothing is written")
    seconds: float = Field(540.0, description="no further model is begun after so many")


def settings_of(model: str, precision: str, shrink: bool) -> Settings:
    """The paper's mathematics on one model, short."""
    answers = "float32" if precision == "float32" else "bf16"
    line = ["method=eva", "task=math", "scale=paper", f"model={model}", *SHORT]
    line += [f"train.precision={precision}", f"eval.precision={answers}", *(["data.max_length=32"] if shrink else [])]
    settings = to_settings(compose_settings(line))
    shape = {**(settings.model.architecture or {}), **(TINY if shrink else {})}
    here = settings.model.model_copy(update={"hub_id": f"shapes/{model}", "architecture": shape})
    return settings.model_copy(update={"model": here})


def calibration(settings: Settings, bundle: ModelBundle) -> list[dict[str, torch.Tensor]]:
    """Batches of random tokens."""
    generator = torch.Generator().manual_seed(0)
    size, words = (ROWS, settings.data.max_length or 512), bundle.module.config.vocab_size
    ids = [torch.randint(3, words, size, generator=generator) for _ in range(BATCHES)]
    return [{"input_ids": batch, "attention_mask": torch.ones_like(batch)} for batch in ids]


def check_model(model: str, device: torch.device, shrink: bool) -> Iterator[dict[str, str]]:
    """Rows of one model: initialisations, then training and answers in both precisions."""
    settings = settings_of(model, "bf16", shrink)
    bundle = shapes.random_language(settings.model, device)
    pissa = to_settings(compose_settings(["method=pissa", "task=math", "scale=paper"])).method
    yield _row(model, "PiSSA initialisation", lambda: build(pissa, Method).initialise(bundle, [], 0))
    eva, found = build(settings.method, Method), []
    batches = calibration(settings, bundle)
    yield _row(model, "EVA initialisation", lambda: found.append(eva.initialise(bundle, batches, 0)))
    adapter = eva.install(bundle, found[0])
    for precision in ("bf16", "float32"):
        chosen = settings_of(model, precision, shrink)
        cost = plan_cost.cost_of(chosen)
        work = (("2 training steps", shapes.train_steps, cost.training), ("answers", shapes.evaluate, cost.evaluation))
        for name, action, planned in work:
            yield _row(model, f"{name}, {precision}", lambda a=action, c=chosen: a(c, bundle, adapter), planned)


def _row(model: str, name: str, work: Callable[[], object], planned: int | None = None) -> dict[str, str]:
    """Seconds and peak memory of some work; where memory runs out, that is what the row says."""
    meter, row = (
        Meter(),
        {"model": model, "work": name, "seconds": "", "peak, GB": "", "plan, GB": "", "plan / peak": ""},
    )
    try:
        with meter.phase("work"):
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        release()
        return row | {"seconds": "out of memory", "plan, GB": "" if planned is None else f"{planned / plan.GB:.2f}"}
    cost = meter.phases["work"]
    row |= {"seconds": f"{cost.seconds:.2f}", "peak, GB": f"{cost.memory_bytes / plan.GB:.2f}"}
    if planned is not None:
        row |= {"plan, GB": f"{planned / plan.GB:.2f}", "plan / peak": f"{planned / max(cost.memory_bytes, 1):.2f}"}
    return row


def engine_overlap(device: torch.device) -> float:
    """Mean squared cosine between EVA's directions on this device and on the CPU, over all layers of a small model."""
    model = settings_of(MODELS[0], "float32", shrink=True)
    found = []
    for where in (device, torch.device("cpu")):
        bundle = shapes.random_language(model.model, "cpu")
        bundle.module.to(where)
        config = SolverConfig(autocast=False, max_batches=4, min_batches=4)
        batches = calibration(model, bundle)
        found.append(compute_subspaces(bundle.module, bundle.targets, batches, components=8, config=config).layers)
    first, second = found
    overlaps = [
        (first[name].components.cpu() @ second[name].components.cpu().T).square().sum() / 8 for name in bundle.targets
    ]
    return float(torch.stack(overlaps).mean())


def check(arguments: GpuCheck, folder: Path = page.FOLDER) -> int:
    """Check all models; a table on the terminal, and in results/bench/gpu.{json,md} where a GPU did it in full.

    Raises:
        UserError: there is no GPU.
    """
    started, rows = time.perf_counter(), []
    if not torch.cuda.is_available() and not arguments.shrink:
        raise UserError("There is no GPU here: make gpu-check ARGS=shrink=true rehearses the check on the CPU.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    overlap = engine_overlap(device)
    for model in MODELS:
        if time.perf_counter() - started > arguments.seconds:
            rows.append({"model": model, "work": "left out: the time is over"})
            continue
        rows += check_model(model, device, arguments.shrink)
        release()
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, tiny shapes"
    note = f"EVA's directions here and on the CPU: mean squared cosine {overlap:.6f}, wanted {OVERLAP}."
    rows = [{key: row.get(key, "") for key in ("model", "work", *FIGURES)} for row in rows]
    if arguments.shrink:
        print("\n".join(" | ".join(row.values()) for row in rows), note, sep="\n")
    else:
        page.write_rows("gpu", f"The paper's models on {where}", rows, note, folder)
    return 0 if overlap >= OVERLAP else 1


if __name__ == "__main__":
    sys.exit(run_command(check, GpuCheck))
