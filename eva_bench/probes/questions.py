"""Questions to the study, each answered in words and a table. See `eva_bench.probes.answers`."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
)
from eva_bench.probes.forgetting import LOSS
from eva_bench.probes.intruders import FACTORS
from eva_bench.probes.result import ProbeResult
from eva_bench.probes.study import BASELINE, Study

WAITING = "Not answered yet."
WHOLE = "full"
# The methods that start in a subspace, and the share of their update within it on the side of the inputs.
SUBSPACES = {"eva": "eva_in", "eva_rho1": "eva_in", "pissa": "pissa_in", "sorsa": "pissa_in", "milora": "milora_in"}


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


def curvature(trainings: Sequence[Training], asked: Study) -> list[str]:
    """Does the best learning rate follow the curvature at initialisation?"""
    measure, title = "curvature/largest", "## Does the best learning rate follow the curvature at initialisation?"
    found, rows = [], []
    for method in asked.methods:
        row = [method]
        for task in asked.tasks:
            mine = [t for t in trainings if (t.method, t.task) == (method, task) and measure in t.values]
            if len(mine) < asked.seeds:
                row += ["–", "–"]
                continue
            middle = {name: mean(t.values[name] for t in mine) for name in (measure, "rate")}
            found.append(Training(task, method, 0, middle))
            row += [*means(mine, method, measure), _number(middle["rate"])]
        rows.append(row)
    answer = WAITING if len(found) < 4 else (
        f"Spearman's correlation over the methods of each task, mean over tasks: "
        f"{_number(rank_correlation(found, measure, 'rate'))}. Its interval stands in claim 3."
    )  # fmt: skip
    header = ["method", *(f"{task}: {name}" for task in asked.tasks for name in ("largest eigenvalue", "rate"))]
    return [title, answer, _table(header, rows)]


def ranks(trainings: Sequence[Training], asked: Study) -> list[str]:
    """How low is the rank of updates and gradients?"""
    names = [f"low_rank/mean_{part}_energy_rank" for part in ("update", "gradient_before", "gradient_after")]
    rows = [[method, *means(trainings, method, *names)] for method in asked.methods]
    title = "## How low is the rank of updates and gradients?"
    if not any(names[0] in t.values for t in trainings):
        return [title, WAITING]
    answer = (
        "Components with 90 % of the squared norm, mean over layers: of the update, of the gradient by the whole "
        "matrix before training, and after."
    )
    return [title, answer, _table(["method", "update", "gradient before", "gradient after"], rows)]


def merging(of_seeds: Sequence[Training], of_methods: Sequence[Training], asked: Study) -> list[str]:
    """Are fine-tunes of one base connected?"""
    title = "## Are fine-tunes of one base connected, and does permuting help?"
    if not (of_seeds or of_methods):
        return [title, WAITING]
    names = ("straight_barrier", "permuted_barrier", "update_cosine", "straight_half_way", "factors_half_way")
    header = [
        "barrier",
        "barrier, permuted",
        "cosine of updates",
        "loss half way",
        "loss half way, A and B averaged apart",
    ]
    said = (
        f"The first two seeds of each method, and the mean of {asked.seeds} seeds. Barriers of the loss on the "
        "straight path, as the models are and after weight matching:"
    )
    rows = [[m, *_plain(of_seeds, m, *names, "merged_loss")] for m in asked.methods if _has(of_seeds, m)]
    parts = [title, said, _table(["method", *header, "loss of the mean"], rows)]
    rows = [[m, *means(of_methods, m, *names)] for m in asked.methods if _has(of_methods, m)]
    return (
        [*parts, f"Every method beside {BASELINE}, of one seed:", _table(["method", *header], rows)] if rows else parts
    )


def matching(results: Sequence[ProbeResult]) -> list[str]:
    """Does weight matching align the leading singular vectors of two pretrainings?"""
    title = "## Does weight matching align the leading singular vectors of pretrainings?"
    rows = []
    for result in results:
        for way in ("straight", "permuted", "straight_through"):
            values = [result.summary.get(f"{way}_{name}") for name in ("barrier", "alignment", "merged")]
            if values[0] is not None:
                cells = ["–" if value is None else _number(value) for value in values]
                rows.append([result.subjects[0], str(len(result.subjects)), way.replace("_", " "), *cells])
    if not rows:
        return [title, WAITING]
    header = ["model", "pretrainings", "units", "barrier", "alignment", "loss of the mean"]
    answer = (
        "Means over pairs of pretrainings, for the straight-through estimator of the first pair. Alignment: 1 for the "
        "same singular vectors. `straight`: units as they are; `permuted`: by weight matching."
    )
    return [title, answer, _table(header, rows)]


def profiles(results: Sequence[ProbeResult]) -> list[str]:
    """How low is the rank of pretrained weights?"""
    title = "## How low is the rank of pretrained weights?"
    names = ("layers", "low_rank_layers", "mean_share", "mean_energy_rank", "mean_full_rank", "mean_stable_rank")
    rows = [[result.subjects[0], *(_number(result.summary[name]) for name in names)] for result in results]
    answer = (
        "Layers that methods adapt; those of them that WeLore would replace and train at half the size; what WeLore "
        "keeps of the rank; components with 90 % of the squared norm, of how many; stable rank. Means over layers."
    )
    header = ["model", "layers", "low rank", "share kept", "90 % of the norm", "of", "stable rank"]
    return [title, answer, _table(header, rows)] if rows else [title, WAITING]


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


def _plain(trainings: Sequence[Training], method: str, *measures: str) -> list[str]:
    """Means over tasks where there is nothing to repeat; empty where a task lacks the measure."""
    mine = [t for t in trainings if t.method == method]
    return [_number(mean(t.values[m] for t in mine)) if all(m in t.values for t in mine) else "–" for m in measures]


def _has(trainings: Sequence[Training], method: str) -> bool:
    return any(training.method == method for training in trainings)


def _cell(found: Interval | None) -> str:
    return "–" if found is None else str(found)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    return f"{value:.3g}"
