"""What the study says: `python -m eva_bench.probes answers` writes <results>/probes/answers.md.

How trainings are compared: `eva_bench.probes.comparisons`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from eva_bench.probes.comparisons import (
    Interval,
    Training,
    at_equal_score,
    bootstrap,
    by_seed,
    difference,
    over_seeds,
    rank_correlation,
)  # fmt: skip
from eva_bench.probes.forgetting import LOSS
from eva_bench.probes.intruders import FACTORS
from eva_bench.probes.pretrainings import PROBE as PRETRAININGS
from eva_bench.probes.result import ProbeResult, Summary, result_path
from eva_bench.probes.study import Chosen, Study, groups_of
from eva_bench.records.record import Record
from eva_bench.system.arguments import parse
from eva_bench.system.files import write_atomically
from eva_bench.system.progress import say

WAITING = "Not answered yet."
BASELINE, WHOLE = "lora", "full"
# The methods that start in a subspace, and the share of their update within it on the side of the inputs.
SUBSPACES = {"eva": "eva_in", "eva_rho1": "eva_in", "pissa": "pissa_in", "sorsa": "pissa_in", "milora": "milora_in"}
MERGING = "connectivity"
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
    parts = [page(read(given.results_dir, runs, asked), asked)]
    parts += merging(list(_read_groups(given.results_dir, runs)), asked)
    parts += matching(sorted((Path(given.results_dir) / "probes" / PRETRAININGS).glob("*.json")))
    return "\n\n".join(parts) + "\n"


def read(results_dir: str, runs: Sequence[Record], asked: Study) -> list[Training]:
    """What is known of each run: its score, its forgetting, and what probes found."""
    found = []
    for record in runs:
        values = {"score": 100 * record.metrics[record.spec.task.primary]}
        before, after = record.metrics_before.get(LOSS), record.metrics.get(LOSS)
        if before and after:
            values["forgetting"] = math.log(after / before)
        for probe in asked.probes:
            path = result_path(results_dir, probe, [record.run_id])
            if path.is_file():
                summary = _read(path).summary
                values |= {f"{probe}/{name}": value for name, value in summary.items() if value is not None}
        found.append(Training(record.task, record.method, record.spec.seed, values))
    return found


def _read_groups(results_dir: str, runs: Sequence[Record]) -> Iterator[tuple[str, Summary]]:
    """Method and summary of every result about all seeds of a method on a task."""
    methods = {record.run_id: record.method for record in runs}
    for group in groups_of(MERGING, runs):
        path = result_path(results_dir, MERGING, group)
        if path.is_file():
            yield methods[group[0]], _read(path).summary


def _read(path: Path) -> ProbeResult:
    return ProbeResult.model_validate_json(path.read_text())


def page(trainings: Sequence[Training], asked: Study) -> str:
    """The answers that single trainings give."""
    seen = {training.method for training in trainings}
    known = asked.model_copy(update={"methods": [method for method in asked.methods if method in seen]})
    parts = ["# What fine-tuning did to the model", NOTE.format(tasks=", ".join(asked.tasks))]
    for section in (forgetting, intruders, mitigation, variation, place):
        parts += section(trainings, known)
    return "\n\n".join(parts)


def forgetting(trainings: Sequence[Training], asked: Study) -> list[str]:
    """Does LoRA forget less at equal score?"""
    rows, answer = [], WAITING
    for method in asked.methods:
        raw = difference(trainings, "forgetting", method, WHOLE, asked.seeds) if method != WHOLE else None
        pair = [t for t in trainings if t.method in (method, WHOLE)]
        equal = bootstrap(pair, lambda found, m=method: at_equal_score(found, m, WHOLE), asked.seeds) if raw else None
        rows.append([method, *means(trainings, method, "score", "forgetting"), _cell(raw), _cell(equal)])
        if method == BASELINE:
            answer = _direction(equal, "less than full fine-tuning", "more than full fine-tuning")
    header = ["method", "score", "forgetting", f"minus that of {WHOLE}", "the same at equal score"]
    return ["## Does LoRA forget less at equal score?", answer, _table(header, rows)]


def intruders(trainings: Sequence[Training], asked: Study) -> list[str]:
    """Do intruders predict forgetting?"""
    measure = "intruders/intruders"
    found = bootstrap(trainings, lambda some: rank_correlation(some, measure, "forgetting"), asked.seeds)
    within = bootstrap(trainings, lambda some: rank_correlation(some, measure, "forgetting", "method"), asked.seeds)
    answer = WAITING if found is None else (
        f"Spearman's correlation of their number with forgetting, over the trainings of each task: {found}; over those "
        f"of each task and method, where the number varies: {_cell(within)}."
    )  # fmt: skip
    rows = [[method, *means(trainings, method, measure, "forgetting")] for method in asked.methods]
    return ["## Do intruders predict forgetting?", answer, _table(["method", "intruders", "forgetting"], rows)]


def mitigation(trainings: Sequence[Training], asked: Study) -> list[str]:
    """What does scaling the top intruder of every layer change?"""
    start = f"intruders/lambda={FACTORS[-1]:g} "
    measures = {"loss": "rise of the task's loss", LOSS: "change of forgetting"}
    scaled = [
        Training(t.task, t.method, t.seed, {
            f"{factor:g} {name}": math.log(t.values[f"intruders/lambda={factor:g} {name}"] / t.values[start + name])
            for factor in FACTORS[:-1] for name in measures
        })
        for t in trainings if all(start + name in t.values for name in measures)
    ]  # fmt: skip
    columns = [f"{factor:g} {name}" for name in measures for factor in (0.0, 0.5)]
    rows = [[method, *means(scaled, method, *columns)] for method in asked.methods]
    title = "## What does scaling the top intruder of every layer by lambda change?"
    header = ["method", *(f"{what}, lambda {factor}" for what in measures.values() for factor in ("0", "0.5"))]
    known = [list(by_seed(scaled, BASELINE, f"0 {name}").values()) for name in measures]
    if len(known[0]) < max(2, asked.seeds):
        return [title, WAITING, *([_table(header, rows)] if scaled else [])]
    lost, gained = map(over_seeds, known)
    answer = (
        f"Without it, {BASELINE}'s loss on the task is exp({lost}) times as large, that on pretraining data "
        f"exp({gained}) times. Logarithms of ratios to the tuned model:"
    )
    return [title, answer, _table(header, rows)]


def variation(trainings: Sequence[Training], asked: Study) -> list[str]:
    """Which method moves singular vectors least?"""
    names = [f"variation/mean_{name}" for name in ("vectors", "matched", "values")]
    known = {m: by_seed(trainings, m, names[0]) for m in asked.methods}
    order = sorted((m for m in known if len(known[m]) >= asked.seeds), key=lambda m: mean(known[m].values()))
    answer = WAITING
    if len(order) > 1:
        gap = difference(trainings, names[0], order[1], order[0], asked.seeds)
        sure = "significantly" if gap and gap.sign > 0 else "not significantly"
        answer = f"{order[0]}; the next, {order[1]}, moves them by {_cell(gap)} more, {sure}."
    rows = [[method, *means(trainings, method, *names)] for method in asked.methods]
    header = ["method", "vectors, by index", "vectors, matched", "values"]
    return ["## Which method moves singular vectors least?", answer, _table(header, rows)]


def place(trainings: Sequence[Training], asked: Study) -> list[str]:
    """Does the initialisation decide where the update lives after training?"""
    names = [f"geometry/mean_{name}" for name in ("eva_in", "pissa_in", "milora_in", "chance_in")]
    said = []
    for method, share in SUBSPACES.items():
        gap = difference(trainings, f"geometry/mean_{share}", method, BASELINE, asked.seeds)
        if method in asked.methods and gap is not None:
            said.append(f"* {method}: {gap} of the update more than {BASELINE} in its own subspace (`{share}`).")
    rows = [[method, *means(trainings, method, *names)] for method in asked.methods]
    header = ["method", "in EVA's directions", "in PiSSA's", "in MiLoRA's", "by chance"]
    title = "## Does the initialisation decide where the update lives after training?"
    return [title, "\n".join(said) or WAITING, _table(header, rows)]


def merging(groups: Sequence[tuple[str, Summary]], asked: Study) -> list[str]:
    """Are fine-tunes of one base connected?"""
    names = ("straight_barrier", "permuted_barrier", "update_cosine", "merged_loss")
    found: dict[str, list[Summary]] = defaultdict(list)
    for method, summary in groups:
        found[method].append(summary)
    rows = []
    for method in (method for method in asked.methods if method in found):
        values = [[summary[name] for summary in found[method]] for name in names]
        rows.append([method, *(_number(mean(value)) if None not in value else "–" for value in values)])
    title = "## Are fine-tunes of one base connected, and does permuting help?"
    if not rows:
        return [title, WAITING]
    answer = (
        f"Barriers of the loss between the first two seeds, as they are and after weight matching; cosine of their "
        f"updates; loss of the mean of {asked.seeds} seeds. Means over tasks."
    )
    return [title, answer, _table(["method", "barrier", "barrier, permuted", "cosine", "loss of the mean"], rows)]


def matching(files: Sequence[Path]) -> list[str]:
    """Does weight matching align the leading singular vectors of two pretrainings?"""
    title = "## Does weight matching align the leading singular vectors of pretrainings?"
    rows = []
    for result in (_read(path) for path in files):
        for way in ("straight", "permuted", "straight_through"):
            values = [result.summary.get(f"{way}_{name}") for name in ("barrier", "alignment", "merged")]
            if values[0] is not None:
                cells = ["–" if value is None else _number(value) for value in values]
                rows.append([result.subjects[0], str(len(result.subjects)), way.replace("_", " "), *cells])
    if not rows:
        return [title, WAITING]
    header = ["model", "pretrainings", "units", "barrier", "alignment", "loss of the mean"]
    answer = "Barrier and alignment (1: the same singular vectors) are means over pairs of pretrainings."
    return [title, answer, _table(header, rows)]


def means(trainings: Sequence[Training], method: str, *measures: str) -> list[str]:
    """Cells with mean and interval over seeds."""
    cells = []
    for measure in measures:
        values = list(by_seed(trainings, method, measure).values())
        cells.append(str(over_seeds(values)) if len(values) > 1 else f"{values[0]:.3g} (one seed)" if values else "–")
    return cells


def _direction(found: Interval | None, below: str, above: str) -> str:
    if found is None:
        return WAITING
    return f"{('No significant difference', above.capitalize(), below.capitalize())[found.sign]}: {found}."


def _cell(found: Interval | None) -> str:
    return "–" if found is None else str(found)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    return f"{value:.3g}"
