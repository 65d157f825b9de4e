"""What the study says: `python -m eva_bench.probes answers` writes <results>/probes/answers.md.

Trainings are compared on the same tasks: a value of a method and seed is a mean over tasks, an interval that of
Student's t over seeds, paired where two methods are compared. Intervals of correlations and of differences at equal
score are percentiles of a bootstrap over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import numpy as np
from scipy import stats

from eva_bench.probes.forgetting import LOSS
from eva_bench.probes.result import ProbeResult, result_path
from eva_bench.probes.study import Chosen, Study
from eva_bench.records.record import Record
from eva_bench.system.arguments import parse
from eva_bench.system.files import write_atomically
from eva_bench.system.progress import say

DRAWS = 2000
WAITING = "Not answered yet."
BASELINE, WHOLE = "lora", "full"
# The methods that start in a subspace, and the share of their update within it on the side of the inputs.
SUBSPACES = {"eva": "eva_in", "eva_rho1": "eva_in", "pissa": "pissa_in", "sorsa": "pissa_in", "milora": "milora_in"}
NOTE = """Made by `python -m eva_bench.probes answers` from records and what `python -m eva_bench.probes study` found.
Intervals are of 95 %, over seeds. Forgetting is the rise of the loss on held-out pretraining data, in percent."""


@dataclass(frozen=True)
class Training:
    """One finished run and what probes measured on it.

    Attributes:
        task, method, seed: of the run.
        values: `score` in percent, `forgetting` in percent of the loss before, and `<probe>/<name>` of the probes.
    """

    task: str
    method: str
    seed: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval of 95 %."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"

    @property
    def sign(self) -> int:
        """1 or -1 where zero is outside, 0 where it is inside."""
        return (self.low > 0) - (self.high < 0)


def main(arguments: Sequence[str]) -> int:
    """Write and show the page.

    Raises:
        UserError: an unknown argument, or no finished run.
    """
    given = parse(Chosen, arguments)
    text = page(read(given.results_dir, given.runs(), given.study), given.study)
    path = Path(given.results_dir) / "probes" / "answers.md"
    write_atomically(path, text)
    say(text)
    say(str(path))
    return 0


def read(results_dir: str, runs: Sequence[Record], asked: Study) -> list[Training]:
    """What is known of each run: its score, its forgetting, and what probes found."""
    found = []
    for record in runs:
        values = {"score": 100 * record.metrics[record.spec.task.primary]}
        before, after = record.metrics_before.get(LOSS), record.metrics.get(LOSS)
        if before and after is not None:
            values["forgetting"] = 100 * (after / before - 1)
        for probe in asked.probes:
            path = result_path(results_dir, probe, [record.run_id])
            if path.is_file():
                result = ProbeResult.model_validate_json(path.read_text())
                values |= {f"{probe}/{name}": value for name, value in result.summary.items() if value is not None}
        found.append(Training(record.task, record.method, record.spec.seed, values))
    return found


def by_seed(trainings: Sequence[Training], method: str, measure: str) -> dict[int, float]:
    """Mean over tasks for each seed; seeds that lack a task which another seed of the method has are left out."""
    mine = [t for t in trainings if t.method == method and measure in t.values]
    tasks = {t.task for t in mine}
    seeds = {t.seed for t in mine}
    rows = {seed: {t.task: t.values[measure] for t in mine if t.seed == seed} for seed in seeds}
    return {seed: mean(row.values()) for seed, row in rows.items() if set(row) == tasks}


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean and Student's interval of at least two values."""
    middle = mean(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Interval(middle, middle - half, middle + half)


def difference(trainings: Sequence[Training], measure: str, ours: str, theirs: str, seeds: int) -> Interval | None:
    """Ours minus theirs over the tasks of both, paired by seed; None with fewer seeds than wanted."""
    shared = set.intersection(*({t.task for t in trainings if t.method == m} for m in (ours, theirs)))
    kept = [t for t in trainings if t.task in shared]
    one, two = (by_seed(kept, method, measure) for method in (ours, theirs))
    pairs = [one[seed] - two[seed] for seed in sorted(set(one) & set(two))]
    return over_seeds(pairs) if len(pairs) >= max(2, seeds) else None


def bootstrap(
    trainings: Sequence[Training], estimate: Callable[[Sequence[Training]], float], seeds: int
) -> Interval | None:
    """An estimate with the percentiles of resampled seeds; None with fewer seeds than wanted, or no estimate."""
    known = sorted({t.seed for t in trainings})
    if len(known) < max(2, seeds) or math.isnan(middle := estimate(trainings)):
        return None
    generator = np.random.default_rng(0)
    groups = {seed: [t for t in trainings if t.seed == seed] for seed in known}
    drawn = [
        estimate([t for seed in generator.choice(known, len(known)) for t in groups[int(seed)]]) for _ in range(DRAWS)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(middle, float(low), float(high))


def rank_correlation(trainings: Sequence[Training], x: str, y: str) -> float:
    """Spearman's correlation over trainings within each task, mean over the tasks where both vary."""
    found = []
    for task in sorted({t.task for t in trainings}):
        pairs = [(t.values[x], t.values[y]) for t in trainings if t.task == task and {x, y} <= t.values.keys()]
        columns = list(zip(*pairs, strict=True))
        if columns and all(len(set(column)) > 1 for column in columns):
            found.append(float(stats.spearmanr(*columns).statistic))
    return mean(found) if found else math.nan


def at_equal_score(trainings: Sequence[Training], ours: str, theirs: str) -> float:
    """Forgetting of ours minus theirs where both score the same: least squares, a level and a slope for each task."""
    rows = [t for t in trainings if t.method in (ours, theirs) and "forgetting" in t.values]
    tasks = sorted({t.task for t in rows})
    if {t.method for t in rows} != {ours, theirs}:
        return math.nan
    design = [
        [float(t.method == ours)]
        + [float(t.task == task) for task in tasks]
        + [t.values["score"] * (t.task == task) for task in tasks]
        for t in rows
    ]
    return float(np.linalg.lstsq(np.array(design), np.array([t.values["forgetting"] for t in rows]), rcond=None)[0][0])


def page(trainings: Sequence[Training], asked: Study) -> str:
    """The whole page."""
    parts = ["# What fine-tuning did to the model", NOTE]
    for section in (forgetting, intruders, variation, place):
        parts += section(trainings, asked)
    return "\n\n".join(parts) + "\n"


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
    answer = WAITING if found is None else (
        f"Spearman's correlation of their number with forgetting, over trainings within each task: {found}."
    )  # fmt: skip
    rows = [[method, *means(trainings, method, measure, "forgetting")] for method in asked.methods]
    return ["## Do intruders predict forgetting?", answer, _table(["method", "intruders", "forgetting"], rows)]


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
    return f"{('No significant difference', above.capitalize(), below.capitalize())[found.sign]}: {found} points."


def _cell(found: Interval | None) -> str:
    return "–" if found is None else str(found)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
