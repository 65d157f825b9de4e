"""The command line: one run, or a sweep; everything a user did wrong is one sentence and exit code 2."""

from __future__ import annotations

import os
import sys
import textwrap

import yaml

from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_settings, compose_spec, to_settings
from eva_bench.sweeps import execute
from eva_bench.sweeps.request import is_sweep
from eva_bench.system.arguments import guarded
from eva_bench.system.errors import UserError
from eva_bench.system.paths import CONF, choices, is_group

PLAN = ("plan", "plan.memory", "plan.processes")  # say what a run would cost instead of running
SHOW = ("-c", "--cfg", "job")  # show the settings instead of running


def main() -> int:
    """Run one cell, or a sweep; the exit code is the worst of its cells."""
    arguments = sys.argv[1:]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if {"-h", "--help"} & set(arguments) or not arguments:
        print(help_text())
        return 0
    return guarded(lambda: run(arguments))


def run(arguments: list[str]) -> int:
    """Show the settings or the costs, run a sweep, or run one cell. Raises UserError."""
    showing = {item.split("=")[0] for item in arguments} & {"-c", "--cfg", *PLAN}
    if showing and is_sweep([item for item in arguments if not item.startswith("dry_run=")]):
        raise UserError(f"{min(showing)} is about one run; for the cells of a sweep there is dry_run=true.")
    if {"-c", "--cfg"} & showing:
        settings = compose_spec([item for item in arguments if item not in SHOW]).what()
        print(yaml.safe_dump(settings, sort_keys=False), end="")
        return 0
    if showing:
        return show_plan(arguments)
    if is_sweep(arguments):
        return execute.main(arguments)
    return run_cell(compose_spec(arguments))


def show_plan(arguments: list[str]) -> int:
    """What a run would cost, and whether it fits `plan.memory` or the GPUs that are here. Raises UserError."""
    from eva_bench.run import plan  # noqa: PLC0415 - imports torch, which no other command needs here

    settings = to_settings(
        compose_settings([item for item in arguments if item.split("=")[0] not in (*PLAN, "dry_run")])
    )
    given = dict(item.split("=", 1) for item in arguments if item.startswith("plan."))
    memory = plan.memory_sizes(given["plan.memory"]) if "plan.memory" in given else plan.devices()
    print(plan.report(settings, memory, plan.process_count(given.get("plan.processes", "1"))))
    return 0


def methods_by_group() -> dict[str, list[str]]:
    """The methods of conf/method/ by what their files say they are; a variant is what it inherits from."""
    contents = {name: yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text()) for name in choices("method")}
    groups: dict[str, list[str]] = {}
    for name, content in contents.items():
        while "group" not in content and (parent := content.get("defaults", [""])[0]) in contents:
            content = contents[parent]
        groups.setdefault(content.get("group", "others"), []).append(name)
    return dict(sorted(groups.items()))


def help_text() -> str:
    """What can be typed, with every choice that exists in conf/."""
    lines = [
        "eva-bench: how should LoRA be initialised?",
        "",
        "One run:           python run.py method=eva task=gsm8k",
        "Another value:     python run.py method=eva task=gsm8k method.rho=1 train.lr=1e-3",
        "A sweep:           python run.py -m method=eva,lora,pissa task=gsm8k seed=0,1,2",
        "A table's suite:   python run.py suite=gsm8k dry_run=true; without dry_run it runs",
        "  in 4 processes:  python run.py suite=gsm8k hydra/launcher=local hydra.launcher.processes=4",
        "  on SLURM:        python run.py suite=gsm8k hydra/launcher=slurm; docs/sweeps.md",
        "What it would cost: python run.py method=eva task=gsm8k scale=paper plan=true plan.memory=24GB,80GB",
        "Show the settings: python run.py method=eva task=gsm8k --cfg job",
        "A family of tasks: python run.py method=eva task=glue",
        "Your own inputs:   data.root=<folder> model.path=<checkpoint> results_dir=<folder>",
        "Once more:         force=true, although there is a record",
        "",
    ]
    families = [name for name in sorted({task.partition("/")[0] for task in choices("task")}) if is_group(name)]
    lines += [f"families  {', '.join(families)}"]
    for group in ("suite", "task", "scale", "model", "tracking"):
        lines += textwrap.wrap(f"{group:<9} {', '.join(choices(group))}", 110, subsequent_indent=" " * 10)
    lines += ["", "methods"]
    for title, names in methods_by_group().items():
        lines += textwrap.wrap(f"  {title}: {', '.join(names)}", 110, subsequent_indent=" " * 10)
    lines += ["", "Recipe and tuned values follow from scale, task and method; the command line always wins."]
    lines += ["Elsewhere: make help, README.md, docs/."]
    return "\n".join(lines)
