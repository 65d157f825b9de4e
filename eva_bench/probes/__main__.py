"""`python -m eva_bench.probes intruders run=<id> | suite=… | adapter=<folder> base=<folder>`: what training did."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pydantic import Field
from transformers.utils import logging as model_logging

from eva_bench.probes import answers, pretrainings, profiles, study, subjects
from eva_bench.probes.measure import PROBES, measure
from eva_bench.probes.result import show
from eva_bench.probes.subjects import Subject
from eva_bench.records.store import Store
from eva_bench.system.arguments import Arguments, guarded, parse
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.progress import say

USAGE = (
    "Usage: python -m eva_bench.probes <probe> run=<id>[,<id>...] | suite=<name> | adapter=<folder> base=<folder> | "
    f"checkpoint=<folder> base=<folder> targets=q_proj,v_proj; probes: {', '.join(PROBES)}. "
    "Or: python -m eva_bench.probes study | answers (conf/probes.yaml), pretrainings others=<folder>[,<folder>...], "
    "or profiles models=<name>[,<name>...]."
)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "study": study.main,
    "answers": answers.main,
    "pretrainings": pretrainings.main,
    "profiles": profiles.main,
}


class Choice(Arguments):
    """What to look at, and where.

    Attributes:
        run: ids, with commas between them.
        snapshots: of these runs, every snapshot instead of the end.
        suite, task, method, scale, seed: instead, all ok runs whose record says so.
        adapter, checkpoint, base, same_base, targets: instead, somebody's own; see `eva_bench.probes.subjects`.
        runs_dir, results_dir: where runs and records lie.
        options: arguments of the probe itself.
    """

    run: str | None = None
    snapshots: bool = False
    suite: str | None = None
    task: str | None = None
    method: str | None = None
    scale: str | None = None
    seed: int | None = None
    adapter: str | None = None
    checkpoint: str | None = None
    base: str | None = None
    same_base: bool = False
    targets: str = ""
    runs_dir: str = "runs"
    results_dir: str = "results"
    options: list[str] = Field(default_factory=list)
    rest = "options"


def main(arguments: Sequence[str] | None = None) -> int:
    """One probe on everything that was chosen; exit code 2 with one sentence for what a user can fix."""
    model_logging.set_verbosity_error()  # what a head lacks in a base model is no news here
    model_logging.disable_progress_bar()
    return guarded(lambda: run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Read the command line, load, measure, write and show.

    Raises:
        UserError: no such probe, an unknown argument, or something that cannot be analysed.
    """
    if {"-h", "--help"} & set(arguments):
        say(USAGE)
        return 0
    if not arguments or "=" in arguments[0]:
        raise UserError(USAGE)
    name = arguments[0]
    if name in COMMANDS:
        return COMMANDS[name](arguments[1:])
    if name not in PROBES:
        raise UserError(f"Unknown probe '{name}'.{did_you_mean(name, PROBES)} Known: {', '.join(PROBES)}.")
    choice = parse(Choice, arguments[1:])
    options = parse(PROBES[name].Options, choice.options)
    loaders = choose(choice)
    for group in [loaders] if name == "connectivity" else [[load] for load in loaders]:
        show(*measure(name, [load() for load in group], options, choice.results_dir))
    return 0


def choose(choice: Choice) -> list[Callable[[], Subject]]:
    """How to load each subject; models are loaded one at a time.

    Raises:
        UserError: nothing or several things chosen, or no run with an ok record.
    """
    filters = {name: getattr(choice, name) for name in ("suite", "task", "method", "scale", "seed")}
    filters = {name: value for name, value in filters.items() if value is not None}
    ways = [choice.run, choice.adapter, choice.checkpoint, filters or None]
    if sum(way is not None for way in ways) != 1 or ((choice.adapter or choice.checkpoint) and not choice.base):
        raise UserError(USAGE)
    if choice.adapter and choice.base:
        return [partial(subjects.of_adapter, Path(choice.adapter), choice.base, choice.same_base)]
    if choice.checkpoint and choice.base:
        targets = tuple(filter(None, choice.targets.split(",")))
        return [partial(subjects.of_checkpoint, Path(choice.checkpoint), choice.base, targets)]
    runs = choice.run.split(",") if choice.run else _recorded(choice.results_dir, filters)
    steps: dict[str, list[int]] | dict[str, list[None]] = {run: [None] for run in runs}
    if choice.snapshots:
        steps = {run: subjects.snapshots_of(run, choice.runs_dir) for run in runs}
    return [partial(subjects.of_run, run, choice.runs_dir, step) for run in runs for step in steps[run]]


def _recorded(results_dir: str, filters: dict[str, str | int]) -> list[str]:
    """Ids of the ok runs whose record agrees with every filter."""
    found = []
    for record in Store(results_dir).read_all():
        facts = {name: getattr(record, name) for name in ("task", "method", "scale", "seed")}
        facts["suite"] = record.origins.suite
        if record.status == "ok" and all(facts[name] == value for name, value in filters.items()):
            found.append(record.run_id)
    if not found:
        raise UserError(f"No ok run in {results_dir} has {', '.join(f'{k}={v}' for k, v in filters.items())}.")
    return found


if __name__ == "__main__":
    sys.exit(main())
