"""What the study says: `python -m eva_bench.probes answers` writes <results>/probes/answers.md.

How trainings are compared: `eva_bench.probes.comparisons`. What is asked: `eva_bench.probes.questions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from eva_bench.probes import pretrainings, profiles, questions
from eva_bench.probes.comparisons import Training
from eva_bench.probes.forgetting import LOSS
from eva_bench.probes.result import ProbeResult, result_path
from eva_bench.probes.study import Chosen, Study, groups_of
from eva_bench.records.record import Record
from eva_bench.system.arguments import parse
from eva_bench.system.files import write_atomically
from eva_bench.system.progress import say

PAIRS = "connectivity"
NOTE = """Made by `python -m eva_bench.probes answers` from records and what `python -m eva_bench.probes study` found.
Means over the tasks {tasks}; intervals are of 95 %, over seeds. Forgetting is the logarithm of how many times larger
the loss on held-out pretraining data is after training."""


def main(arguments: Sequence[str]) -> int:
    """Write and show the page.

    Raises:
        UserError: an unknown argument, or no finished run.
    """
    given = parse(Chosen, arguments)
    text = page_of(given)
    path = Path(given.results_dir) / "probes" / "answers.md"
    write_atomically(path, text)
    say(text)
    say(str(path))
    return 0


def page_of(given: Chosen) -> str:
    """The whole page, from records and results. Raises UserError where no run has finished."""
    runs, asked = given.runs(), given.study
    probes = Path(given.results_dir) / "probes"
    return page(
        read(given.results_dir, runs, asked),
        read_pairs(given.results_dir, runs),
        {
            name: [_read(path) for path in sorted((probes / name).glob("*.json"))]
            for name in (pretrainings.PROBE, profiles.PROBE)
        },
        asked,
    )


def page(
    trainings: Sequence[Training],
    pairs: tuple[Sequence[Training], Sequence[Training]],
    models: dict[str, list[ProbeResult]],
    asked: Study,
) -> str:
    """The page from what was read."""
    seen = {training.method for training in trainings}
    known = asked.model_copy(update={"methods": [method for method in asked.methods if method in seen]})
    parts = ["# What fine-tuning did to the model", NOTE.format(tasks=", ".join(asked.tasks))]
    for question in (
        questions.forgetting, questions.intruders, questions.mitigation, questions.variation, questions.place,
        questions.curvature, questions.ranks,
    ):  # fmt: skip
        parts += question(trainings, known)
    parts += questions.merging(*pairs, known)
    parts += questions.matching(models.get(pretrainings.PROBE, []))
    parts += questions.profiles(models.get(profiles.PROBE, []))
    return "\n\n".join(parts) + "\n"


def read(results_dir: str, runs: Sequence[Record], asked: Study) -> list[Training]:
    """What is known of each run: its score, its learning rate, its forgetting, and what probes found."""
    found = []
    for record in runs:
        values = {"score": 100 * record.metrics[record.spec.task.primary], "rate": record.spec.train.lr}
        before, after = record.metrics_before.get(LOSS), record.metrics.get(LOSS)
        if before and after:
            values["forgetting"] = math.log(after / before)
        for probe in asked.probes:
            values |= {
                f"{probe}/{name}": value for name, value in _summary(results_dir, probe, [record.run_id]).items()
            }
        found.append(Training(record.task, record.method, record.spec.seed, values))
    return found


def read_pairs(results_dir: str, runs: Sequence[Record]) -> tuple[list[Training], list[Training]]:
    """What compares trainings: the seeds of a method, as of its first seed; and a method beside LoRA, of each seed."""
    known = {record.run_id: record for record in runs}
    of_seeds, of_methods = [], []
    for group in groups_of(PAIRS, runs):
        if values := _summary(results_dir, PAIRS, group):
            last = known[group[-1]]
            alike = known[group[0]].method == last.method
            seed = known[group[0]].spec.seed
            (of_seeds if alike else of_methods).append(Training(last.task, last.method, seed, values))
    return of_seeds, of_methods


def _summary(results_dir: str, probe: str, subjects: Sequence[str]) -> dict[str, float]:
    path = result_path(results_dir, probe, subjects)
    if not path.is_file():
        return {}
    return {name: value for name, value in _read(path).summary.items() if value is not None}


def _read(path: Path) -> ProbeResult:
    return ProbeResult.model_validate_json(path.read_text())
