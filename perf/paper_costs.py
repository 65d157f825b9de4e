"""docs/paper_costs.md: what the EVA paper's tables would take, and the settings with which its models fit a GPU.

`python -m perf.paper_costs`, from plans alone (minutes on one core): no GPU, no download.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path

from eva_bench.assets.catalogue import entry
from eva_bench.run import plan
from eva_bench.run.plan_cost import Cost, cost_of, steps_of
from eva_bench.settings.compose import compose_settings, dataset_names, to_settings
from eva_bench.settings.schema import Settings
from eva_bench.sweeps.plan import read_suite
from eva_bench.system import paths
from eva_bench.system.files import write_atomically
from eva_bench.system.paths import tasks_of
from perf import page

PAGE = paths.ROOT / "docs" / "paper_costs.md"
LLAMA2, LLAMA3, GEMMA = "model=llama2_7b", "model=llama3_1_8b", "model=gemma2_9b"
SPLIT = "recipe=paper/math_70b"


@dataclass(frozen=True)
class Table:
    """A table of the EVA paper.

    Attributes:
        title: number and content.
        suite: its cells here.
        trainings: tasks, and how many trainings of a method and seed take as long as that of each.
        models: what chooses them on the command line.
    """

    title: str
    suite: str
    trainings: tuple[tuple[str, int], ...]
    models: tuple[str, ...]
    more: tuple[str, ...] = ()  # settings that a plan needs where the data are not here


GLUE = tuple((f"glue/{name}", 1) for name in ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte"))
TABLES = (
    Table("8, mathematics", "math", (("math", 1),), (LLAMA2, LLAMA3, GEMMA, SPLIT)),  # GSM8K shares MATH's training
    Table("7, commonsense", "commonsense", (("commonsense", 1),), (LLAMA2, LLAMA3, GEMMA)),
    Table("2, GLUE", "glue", GLUE, ("model=roberta_large", "recipe=paper/glue_deberta/{task}")),
    Table(
        "20, VTAB-1K",
        "vtab1k",
        (("vtab1k/dtd", 19),),
        ("model=dinov2_g14", "model=dinov2_l14"),
        ("data.rows=1000", "data.rows_seed=0"),  # each set has as many
    ),
    Table("23, Meta-World", "metaworld", (("metaworld/push", 10),), ("model=decision_paper",)),
)
PROCESSES = 8  # of a model whose weights are split
LISTED = 8  # sets by name; more are a number
MEMORY = ("80GB", "48GB", "24GB")
# Further and further down where memory is small: settings of training, of evaluation, of both.
LADDER: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ((), (), ()),
    (("train.micro_batch_size=1",), ("eval.batch_size=8",), ()),
    (("train.micro_batch_size=1", "train.gradient_checkpointing=true"), ("eval.batch_size=2",), ()),
    (
        ("train.micro_batch_size=1", "train.gradient_checkpointing=true"),
        ("eval.batch_size=1",),
        ("model.dtype=bfloat16",),
    ),
)
HEAD = f"""# What the paper's tables would take

Written by `python -m perf.paper_costs` from plans alone (`plan=true`): nothing was downloaded, and no GPU measured it.
[results/bench/plan.md](../results/bench/plan.md) compares plans with what torch allocates for small models.

## Per table
Runs are the cells of the suite here. Hours are those of training, for LoRA, times the trainings of the suite: at most,
because every example counts as long as the recipe allows, at {plan.A100 / 1e12:.0f} TFLOP/s (40 % of an A100's bf16).
Answers come on top. `make fetch` brings data and models; for gated models their licence is accepted on the hub first.
VTAB-1K's archive is put in place by hand ([page](tasks/vtab1k.md)). llama3_1_70b is split among {PROCESSES} processes.
"""
MIDDLE = f"""
## Settings for 24, 48 and 80 GB
What a plan says fits into {plan.RESERVE:.0%} of the memory, for LoRA and the task named: examples of mathematics have
512 tokens and answers of up to 2,048, those of commonsense 1,024 and none. `train.micro_batch_size` keeps the
effective batch, `eval.batch_size` the answers and `train.gradient_checkpointing` the gradients: numbers stay the
same. `model.dtype=bfloat16` changes them. Peaks are those of the recipe as it is.
"""


def settings_of(table: Table, task: str, model: str, more: Iterable[str] = ()) -> Settings:
    """The paper's recipe for LoRA on one task and model."""
    chosen = model.format(task=task.rpartition("/")[2])
    line = ["method=lora", f"task={task}", "scale=paper", chosen, *table.more, *more]
    return to_settings(compose_settings(line))


def cells(suite: str) -> Counter[str]:
    """How many cells a suite has of each of its tasks."""
    found: Counter[str] = Counter()
    for grid in read_suite(suite)["grids"]:
        each = prod(len(_listed(value)) for key, value in grid.items() if key != "task")
        found.update({name: each for task in _listed(grid["task"]) for name in tasks_of(task)})
    return found


def _listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


def data_of(tasks: Iterable[str]) -> str:
    """Data sets that tasks read at paper scale, and their licences."""
    sets: dict[str, set[str]] = {}
    for task in tasks:
        settings = to_settings(compose_settings(["method=lora", f"task={task}", "scale=paper"]))
        for name in dataset_names(settings):
            for part in entry(name).get("parts", [name]):
                owner = part if part.count("/") < 2 else part.rpartition("/")[0]
                sets.setdefault(owner, set()).add(entry(part).get("licence", "each set its own"))
    alike: dict[tuple[str, str], list[str]] = {}  # folder and licences -> names
    for name, licences in sets.items():
        alike.setdefault((name.rpartition("/")[0], ", ".join(sorted(licences))), []).append(name)
    parts = {
        f"{len(names)} sets of {folder}" if len(names) > LISTED else name: licence
        for (folder, licence), names in alike.items()
        for name in names
    }
    return "; ".join(f"{name} ({licence})" for name, licence in parts.items())


@cache
def plan_of(table: Table, model: str, rung: int = 0) -> Cost:
    """The cost of the first task of a table, on a rung of LADDER."""
    more = [item for part in LADDER[rung] for item in part]
    return cost_of(settings_of(table, table.trainings[0][0], model, more), PROCESSES)


def hours_of(table: Table, model: str) -> float:
    """Hours of training of one method and seed on all tasks of a table; a pass takes as long for all of them."""
    cost, first = plan_of(table, model), settings_of(table, table.trainings[0][0], model)
    assert cost.flops is not None and cost.steps is not None
    each, total = cost.flops / (cost.steps * first.train.batch_size), 0.0
    for task, count in table.trainings:
        settings = settings_of(table, task, model)
        assert settings.data.max_length == first.data.max_length
        total += count * each * (steps_of(settings) or 0) * settings.train.batch_size
    return total / plan.A100 / 3600


def recipe_for(memory: float, cost: Callable[[int], Cost]) -> str:
    """The settings that a GPU needs.

    Args:
        memory: its bytes.
        cost: the plan of a rung of LADDER.
    """
    limit = plan.RESERVE * memory
    rungs = range(len(LADDER))
    training = next((rung for rung in rungs if cost(rung).training <= limit), None)
    evaluation = next((rung for rung in rungs if cost(rung).evaluation <= limit), None)
    if training is None or evaluation is None:
        return "none of these"
    if rungs[-1] in (training, evaluation):  # the weights are others, for both
        training = evaluation = rungs[-1]
    chosen = LADDER[training][0] + LADDER[evaluation][1] + LADDER[max(training, evaluation)][2]
    return " ".join(f"`{item}`" for item in chosen) or "as it is"


def need(table: Table, model: str) -> dict[str, str]:
    """A row of the first table: what a table of the paper takes with one model."""
    chosen = settings_of(table, table.trainings[0][0], model).model
    count, each = cells(table.suite), hours_of(table, model)
    return {
        "table": table.title,
        "model": f"{chosen.name} ({chosen.licence or 'made here'})",
        "suite": f"`{table.suite}`",
        "runs": f"{count.total():,}",
        "hours of a seed": f"{each:,.1f}",
        "hours of all": f"{each * count[table.trainings[0][0]]:,.0f}",
        "data": data_of(count),
    }


def note(table: Table, model: str) -> dict[str, str]:
    """A row of the second table: which settings a model needs on which GPU."""
    task, cost = table.trainings[0][0], plan_of(table, model)
    row = {"model": settings_of(table, task, model).model.name, "task": task}
    for title, value in (("weights", cost.weights), ("training", cost.training), ("eval", cost.evaluation)):
        row[f"{title}, GB"] = f"{value / plan.GB:.1f}"
    sizes = plan.memory_sizes(",".join(MEMORY))
    return row | {name: recipe_for(size, partial(plan_of, table, model)) for name, size in sizes.items()}


def write(tables: Iterable[Table]) -> str:
    """The whole page; a model has one note, for the first table that has it."""
    pairs = [(table, model) for table in tables for model in table.models]
    first = {model: table for table, model in reversed(pairs)}
    notes = [note(table, model) for table, model in pairs if first[model] is table]
    return "\n".join([HEAD, *page.table([need(*pair) for pair in pairs]), MIDDLE, *page.table(notes)]) + "\n"


def main(file: Path = PAGE) -> None:
    """Write the page."""
    write_atomically(file, write(TABLES))


if __name__ == "__main__":
    main()
