"""`make select`: the best learning rate (and rank, if the grid has several) per method, as ordinary config files.

Only stage=tune records count, which are scored on validation data. Every method is judged on the same grid with
the same seeds; the file names the records that the choice came from.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pydantic import Field

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.settings.spec import RunSpec, fingerprint
from eva_bench.system import paths
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.progress import warn


def merit(records: Sequence[Record]) -> tuple[float, float]:
    """What a learning rate is judged by: the task's primary metric, then a low loss on the reference answers.

    One at which a run failed (a loss that is not finite) is the worst.

    Raises:
        UserError: a finished run whose metric is no number, by its name: nothing can be chosen by it.
    """
    if any(record.status == "failed" for record in records):
        return -math.inf, -math.inf
    primary = records[0].spec.task.primary
    for record in records:
        if not math.isfinite(record.metrics.get(primary, math.nan)):
            raise UserError(f"The record '{record.run_id}' has no number for {primary}: nothing can be chosen by it.")
    losses = [r.metrics["reference_loss"] for r in records if "reference_loss" in r.metrics]
    return mean(r.metrics[primary] for r in records), -mean(losses) if losses else 0.0


@dataclass(frozen=True, order=True)
class Point:
    """One point of the grid."""

    lr: float
    rank: int


@dataclass(frozen=True)
class Choice:
    """A method's best point and the records that it came from."""

    lr: float
    rank: int | None  # None where the grid has one rank only: then it is the recipe's business
    records: list[Record]

    def to_yaml(self) -> str:
        sources = "\n".join(f"#   {run_id}" for run_id in sorted(record.run_id for record in self.records))
        rank = "" if self.rank is None else f"adapter:\n  rank: {self.rank}\n"
        return (
            "# @package _global_\n# Written by `make select`: the best of a grid on validation data. From the records\n"
            f"{sources}\n{rank}train:\n  lr: {float(self.lr)!r}\n"
        )


def select(records: Sequence[Record], scale: str, place: str) -> dict[str, Choice]:
    """Per method the point with the best mean on validation data.

    Args:
        place: a family of tasks, or one task.

    Raises:
        UserError: no tuning records, or methods whose grids differ.
    """
    by_method: dict[str, dict[Point, list[Record]]] = defaultdict(lambda: defaultdict(list))
    settings = set()
    for record in records:
        spec = record.spec
        finished = record.status in ("ok", "failed")
        if finished and (spec.stage, record.scale) == ("tune", scale) and place in (spec.task.family, record.task):
            by_method[record.method][Point(spec.train.lr, spec.adapter.rank)].append(record)
            settings.add(_common_settings(spec))
    if len(settings) > 1:
        raise UserError(
            f"The stage=tune records of '{place}' at scale '{scale}' differ in more than method, seed, "
            "learning rate and rank (task, model, data, length of training or protocol): "
            "move those that no longer count out of records/."
        )
    if not by_method:
        raise UserError(
            f"No stage=tune records of '{place}' at scale '{scale}': run the grid first (docs/protocol.md)."
        )
    grids = {
        method: sorted((p.lr, p.rank, len(found)) for p, found in points.items())
        for method, points in by_method.items()
    }
    if len({str(grid) for grid in grids.values()}) > 1:
        shown = "; ".join(f"{method}: {grid}" for method, grid in sorted(grids.items()))
        raise UserError(f"The methods were not tuned on one common grid: (learning rate, rank, runs) {shown}.")
    chosen = {}
    for method, points in by_method.items():
        best = max(points, key=lambda point: merit(points[point]))
        rates, ranks = sorted({point.lr for point in points}), {point.rank for point in points}
        chosen[method] = Choice(best.lr, best.rank if len(ranks) > 1 else None, points[best])
        if len(rates) > 1 and best.lr in (rates[0], rates[-1]):
            warn(f"{method}: the best learning rate {best.lr:g} is at the edge of the grid; a wider grid may be better")
    return chosen


def _common_settings(spec: RunSpec) -> str:
    """Fingerprint of everything that all tuning runs must share."""
    common = {key: value for key, value in spec.what().items() if key not in ("method", "seed", "adapter")}
    return fingerprint(common | {"train": common["train"] | {"lr": None}})


class TuneArguments(Arguments):
    """Choose a learning rate per method from stage=tune records.

    Writes conf/tuned/<scale>/<family or task>/<method>.yaml.
    make select ARGS="family=glue"
    """

    scale: str = Field("pocket", description="scale of the records")
    family: str | None = Field(None, description="family of tasks: math, commonsense, glue, vtab1k, metaworld")
    task: str | None = Field(None, description="one task, instead of its family")
    results_dir: Path = Field(Path("results"), description="folder of the records")


def choose(arguments: TuneArguments) -> int:
    """Write the chosen values of every tuned method. Raises UserError."""
    key = arguments.task or arguments.family
    if key is None:
        raise UserError("Which records? Give family=<family> or task=<task>.")
    chosen = select(list(Store(arguments.results_dir).read_all()), arguments.scale, key)
    folder = paths.CONF / "tuned" / arguments.scale / key
    folder.mkdir(parents=True, exist_ok=True)
    for method, choice in sorted(chosen.items()):
        (folder / f"{method}.yaml").write_text(choice.to_yaml())
        primary, loss = merit(choice.records)
        rank = "" if choice.rank is None else f" adapter.rank={choice.rank}"
        name = choice.records[0].spec.task.primary
        print(f"{method}: train.lr={choice.lr:g}{rank} ({name} {primary:.3f}, loss {-loss:.3f})")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.sweeps.tune family=<family> [scale=...] [results_dir=...]`."""
    return run_command(choose, TuneArguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
