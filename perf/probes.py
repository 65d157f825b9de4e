"""What probes cost with the options of conf/probes.yaml: on a short run of every pocket model, intruders on one
4096 x 4096 layer, forgetting in a run.

Seconds are those that one thread computes, single measurements, so that other work on the machine moves them little.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from eva_bench.models.linear import weight_matrix
from eva_bench.probes import intruders, study, subjects
from eva_bench.probes.measure import PROBES, measure
from eva_bench.probes.trained import Layer
from eva_bench.probes.workbench import TEST_EXAMPLES
from eva_bench.records.store import Store
from eva_bench.run.plan_cost import skeleton_of
from eva_bench.settings.compose import compose_spec
from eva_bench.settings.spec import PROTOCOL
from eva_bench.system.arguments import parse
from eva_bench.system.paths import RESULTS
from perf import page, process
from perf.parameters import CELLS, settings_of

LARGE, WIDTH = "Llama-3.1-8B", 4096
SHORT = ["method=lora", "train.steps=2", "train.epochs=null", "tracking=off", "threads=1"]
DECISION = "pocket decision"
MODELS = ("pocket language", "pocket encoder", "pocket vision", DECISION)
EPISODES = 8  # of the decision model; the others have as many test rows as a probe reads


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of computing."""
    start = time.process_time()
    work()
    return time.process_time() - start


def of_runs() -> dict[str, dict]:
    """Seconds of every probe on two seeds of each pocket model, whose runs are made first; the slowest counts."""
    slowest: dict[str, tuple[float, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for title in MODELS:
            runs = []
            for seed in (0, 1):
                rows = f"eval.limit={EPISODES if title == DECISION else TEST_EXAMPLES}"
                given = [*SHORT, CELLS[title], rows, f"seed={seed}", f"results_dir={folder}"]
                process.run([sys.executable, "run.py", *given]).checked()
                runs.append(compose_spec(given).run_id)
            options = study.read_study().probes if title != DECISION else {}  # whose units matching does not know
            for name, module in PROBES.items():
                chosen, given = runs if name == "connectivity" else runs[:1], options.get(name, [])

                def work(name=name, module=module, chosen=chosen, given=given) -> None:
                    found = [subjects.of_run(run, f"{folder}/runs") for run in chosen]
                    measure(name, found, parse(module.Options, given), folder)

                slowest[name] = max(slowest.get(name, (0.0, "")), (seconds_of(work), title))
    return {
        f"{name}, slowest of the pocket models": page.figure(round(seconds, 1), "s", "<= 20", model=title)
        for name, (seconds, title) in slowest.items()
    }


def of_large_models() -> dict[str, dict]:
    """Intruders on one layer measured, and on a model of 8B parameters by the cubes of its layers."""
    generator = torch.Generator().manual_seed(0)
    base, update = (torch.randn(WIDTH, WIDTH, generator=generator) for _ in range(2))
    one = seconds_of(lambda: intruders.similarities(Layer(base, 0.01 * update)))
    bundle = skeleton_of(settings_of(CELLS[LARGE], "lora"))
    shapes = [weight_matrix(bundle.module.get_submodule(name)).shape for name in bundle.targets]
    cubes = sum(out * width * min(out, width) for out, width in shapes) / WIDTH**3
    return {
        f"intruders, one layer of {WIDTH} x {WIDTH}": page.figure(round(one, 1), "s"),
        f"the same on {LARGE}, by arithmetic": page.figure(round(one * cubes / 3600, 2), "h"),
    }


def of_forgetting() -> dict[str, dict]:
    """Share of forgetting in the committed runs of this protocol, the median of all that trained."""
    shares = []
    for record in Store(RESULTS).read_all():
        spent = record.costs.get("forgetting")
        if record.status == "ok" and record.spec.protocol == PROTOCOL and _trained(record.costs) and spent:
            shares.append(100 * spent.seconds / sum(cost.seconds for cost in record.costs.values()))
    if not shares:
        return {}
    figure = page.figure(round(median(shares), 1), f"% (median of {len(shares)} runs)", "<= 5")
    return {"forgetting after training, share of a run": figure}


def _trained(costs: dict) -> bool:
    """Whether a run trained and did not take its weights from another."""
    return "train" in costs and costs["train"].seconds > 1


PARTS: dict[str, Callable[[], dict[str, dict]]] = {
    "forgetting": of_forgetting,
    "large": of_large_models,
    "runs": of_runs,
}


def main(parts: Sequence[str] = tuple(PARTS), folder: Path = page.FOLDER) -> None:
    """Measure and write results/bench/probes.{json,md}; `python -m perf.probes large` measures a part again."""
    torch.set_num_threads(1)
    new: dict[str, dict] = {}
    for part in parts:
        new |= PARTS[part]()
    file = folder / "probes.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    page.write("probes", "What probes cost", known | new, " ".join((__doc__ or "").split()), folder)


if __name__ == "__main__":
    main(sys.argv[1:] or tuple(PARTS))
