"""How many numbers each method trains at a recipe's rank, and the rank at which a method trains as many as LoRA."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean

import torch
from omegaconf import DictConfig

from eva_bench import models
from eva_bench.methods.base import Method
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.records.store import Store
from eva_bench.run.plan_cost import adapter_of, skeleton_of
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_settings, to_settings
from eva_bench.settings.schema import Settings
from eva_bench.system.paths import RESULTS, choices
from eva_bench.task import Task
from perf import page

CELLS = {
    "pocket language": "task=gsm8k",
    "pocket exam": "task=commonsense",
    "pocket encoder": "task=glue/cola",
    "pocket vision": "task=vtab1k/dtd",
    "pocket decision": "task=metaworld/push",
    "Llama-2-7B": "scale=paper task=gsm8k model=llama2_7b",
    "Llama-3.1-8B": "scale=paper task=gsm8k model=llama3_1_8b",
    "Gemma-2-9B": "scale=paper task=gsm8k model=gemma2_9b",
    "RoBERTa-large": "scale=paper task=glue/rte model=roberta_large",
    "DeBERTa-v3-base": "scale=paper task=glue/rte model=deberta_v3_base",
    "DINOv2-g/14": "scale=paper task=vtab1k/dtd",
    "decision transformer": "scale=paper task=metaworld/push",
}
NEAR = 0.05  # a count that differs from LoRA's by more gets a matching rank
NOTE = """Percent of the numbers that LoRA trains at the same rank; a classifier's head, and biases that are trained,
are counted for all. `by data`: ranks follow from data or weights that are not here; at pocket scale such counts are
means of the committed records, or of the pocket weights. AdaLoRA trains its initial budget and ends with two thirds of
it. HRP, NoRA and all others that are not in the second table are within 5 %.

## Matched budgets

The value of `adapter.rank` at which a method's count is nearest to LoRA's at the recipe's rank, and what it is then.
`none`: no rank comes nearer.

"""


COMPOSED: dict[tuple[str, ...], DictConfig] = {}  # kept, because composing takes longer than counting


@cache
def settings_of(cell: str, method: str, rank: int | None = None) -> Settings:
    """The settings of a method in a cell, at the recipe's rank or at another."""
    if (method, rank) == ("lora", None):
        return to_settings(compose_settings(["method=lora", *cell.split(), "train.lr=1"]))
    recipe = settings_of(cell, "lora")
    adapter = recipe.adapter.model_copy(update={} if rank is None else {"rank": rank})
    values = [f"adapter.rank={adapter.rank}", f"adapter.alpha={adapter.alpha}", "train.lr=1"]
    composed = to_settings(compose_settings([f"method={method}", "task=gsm8k", *values], COMPOSED))
    return recipe.model_copy(update={"method": composed.method, "adapter": adapter})


def by_shape(settings: Settings, bundle: ModelBundle) -> int | None:
    """Trained numbers as far as shapes alone can tell; None where data or weights decide.

    Args:
        settings: of a run.
        bundle: its model without weights, left as it is.
    """
    method = build(settings.method, Method)
    first = weight_matrix(bundle.module.get_submodule(bundle.targets[0])).shape
    if method.layer_rank((first[0], first[1])) is None:
        return None
    with torch.device("meta"):
        fresh = replace(bundle, module=copy.deepcopy(bundle.module))
        return adapter_of(settings, fresh).trainable_parameters()


def by_weights(settings: Settings) -> int | None:
    """Trained numbers of a method that needs nothing but pocket weights."""
    method, task = build(settings.method, Method), build(settings.task, Task)
    if method.uses_data or settings.scale.name != "pocket":
        return None
    return method.attach(models.load(settings.model, settings.data, "cpu", task.outputs), [], 0).trainable_parameters()


def recorded() -> dict[tuple[str, str, int], float]:
    """Mean of the trained numbers in committed records, by model, method and rank."""
    counts = defaultdict(list)
    for record in Store(str(RESULTS)).read_all():
        if record.status == "ok" and record.trainable_parameters:
            key = (record.spec.model.name, record.method, record.spec.adapter.rank)
            counts[key].append(record.trainable_parameters)
    return {key: mean(found) for key, found in counts.items()}


def matched(cell: str, method: str, bundle: ModelBundle, count: float, wanted: int) -> str:
    """The rank at which a method trains about as many numbers as LoRA, and what is then left between them."""
    rank = settings_of(cell, method).adapter.rank
    more = by_shape(settings_of(cell, method, rank + 1), bundle)
    if more is None or more == count:
        return "none"
    most = min(min(weight_matrix(bundle.module.get_submodule(name)).shape) for name in bundle.targets)
    wished = math.floor(rank + (wanted - count) / (more - count))  # heads and biases do not grow with the rank
    best, found = rank, count
    for r in {min(most, max(1, wished + step)) for step in (0, 1)} - {rank}:
        other = by_shape(settings_of(cell, method, r), bundle)
        if other is not None and abs(other - wanted) < abs(found - wanted):
            best, found = r, other
    return "none" if best == rank else f"{best}: {100 * found / wanted:.1f} %"


def measure(cells: dict[str, str], methods: list[str]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of both tables: counts by method and model, and matching ranks of those that differ from LoRA."""
    known = recorded()
    counts: dict[str, dict[str, str]] = {name: {"method": name} for name in methods}
    ranks: dict[str, dict[str, str]] = {}
    for title, cell in cells.items():
        lora = settings_of(cell, "lora")
        bundle = skeleton_of(lora)
        wanted = by_shape(lora, bundle)
        assert wanted is not None
        heading = f"{title}, rank {lora.adapter.rank}: {wanted:,}"
        for name in methods:
            settings = settings_of(cell, name)
            key = (settings.model.name, name, settings.adapter.rank)
            count = by_shape(settings, bundle) or by_weights(settings) or known.get(key)
            counts[name][heading] = "by data" if count is None else f"{100 * count / wanted:.1f}"
            if count is not None and abs(count / wanted - 1) > NEAR:
                ranks.setdefault(name, {"method": name})[title] = matched(cell, name, bundle, count, wanted)
    return list(counts.values()), [
        {"method": name} | {t: row.get(t, "-") for t in cells} for name, row in ranks.items()
    ]


def main(folder: Path = page.FOLDER) -> None:
    """Count and write results/bench/parameters.{json,md}."""
    counts, ranks = measure(CELLS, choices("method"))
    note = NOTE + "\n".join(page.table(ranks))
    page.write_rows("parameters", "Trained parameters", counts, note, folder)


if __name__ == "__main__":
    main()
