"""`make select`: the best learning rate (and rank, if the grid has several) per method, as ordinary config files.

Only stage=tune records count, which are scored on validation data. A method is judged by the mean over the tasks and
seeds that all its rates have; the file names the records that the choice came from.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.reporting.rates import curve_of
from eva_bench.reporting.statistics import Curve
from eva_bench.settings.schema import where_settings
from eva_bench.settings.spec import PROTOCOL, RunSpec, fingerprint
from eva_bench.system import paths
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.progress import warn

PLANNED = {"task", "method", "seed", "scale", "stage", "train.lr", "adapter.rank"} | where_settings()
SAME = 1.1  # spacings that differ by less than this factor are the same


@dataclass(frozen=True)
class Choice:
    """A method's chosen point, the curve over learning rates at its rank, and the records that it came from."""

    curve: Curve
    rank: int | None  # None where the grid has one rank only: then it is the recipe's business
    records: list[Record]

    @property
    def lr(self) -> float:
        """The chosen learning rate."""
        return self.curve.chosen

    def to_yaml(self) -> str:
        sources = "\n".join(f"#   {run_id}" for run_id in sorted(record.run_id for record in self.records))
        rank = "" if self.rank is None else f"adapter:\n  rank: {self.rank}\n"
        return (
            "# @package _global_\n# Written by `make select`: chosen on validation data. From the records\n"
            f"{sources}\n{rank}train:\n  lr: {float(self.lr)!r}\n"
        )


def select(records: Sequence[Record], scale: str, place: str) -> dict[str, Choice]:
    """Per method the lowest learning rate that is not clearly worse than the best one on validation data.

    Ranks count that all methods were tuned at: a rank that only some have had would be an advantage of theirs.

    Args:
        records: of any stage, scale and task.
        scale: the scale that counts.
        place: a family of tasks, or one task.

    Raises:
        UserError: no tuning records, records that do not compare, methods without a common rank, or whose grids are
            not equally fine.
    """
    by_method: dict[str, dict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in _counted(records, scale, place):
        by_method[record.method][record.spec.adapter.rank].append(record)
    ranks = set.intersection(*(set(by_rank) for by_rank in by_method.values()))
    if not ranks:
        raise UserError(f"The methods of '{place}' at scale '{scale}' were tuned at no common rank.")
    chosen = {}
    for method, by_rank in by_method.items():
        curves = {rank: curve_of(method, found) for rank, found in by_rank.items() if rank in ranks}
        rank = min(curves, key=lambda rank: curves[rank].mean(curves[rank].best))
        curve = curves[rank]
        used = [record for record in by_rank[rank] if record.spec.train.lr == curve.chosen]
        chosen[method] = Choice(curve, rank if len(ranks) > 1 else None, used)
        if curve.at_edge:
            warn(
                f"{method}: the best learning rate {curve.best:g} or the chosen one {curve.chosen:g} is at the edge of "
                "the grid; a wider grid may be better"
            )
    _check_spacing(chosen)
    return chosen


def _counted(records: Sequence[Record], scale: str, place: str) -> list[Record]:
    """The finished tuning runs of a family or task that are part of a grid, not somebody's experiment."""
    found, settings = [], defaultdict(set)
    for record in records:
        spec = record.spec
        if (spec.stage, record.scale, spec.protocol) != ("tune", scale, PROTOCOL):
            continue
        changed = {item.split("=")[0] for item in record.origins.command_line} - PLANNED
        if place in (spec.task.family, record.task) and record.status in ("ok", "failed") and not changed:
            found.append(record)
            settings[record.task].add(_common_settings(spec))
    if any(len(different) > 1 for different in settings.values()):
        raise UserError(
            f"The stage=tune records of '{place}' at scale '{scale}' differ in more than method, seed, "
            "learning rate and rank (model, data, or length of training): "
            "move those that no longer count out of records/."
        )
    if not found:
        raise UserError(
            f"No stage=tune records of '{place}' at scale '{scale}': run the grid first (docs/protocol.md)."
        )
    return found


def _check_spacing(chosen: dict[str, Choice]) -> None:
    """Raises UserError where one method's grid is finer than another's at its best rate: it would be tuned better."""
    if len({choice.curve.rates for choice in chosen.values()}) <= 1:
        return
    spacings = {method: choice.curve.spacing for method, choice in chosen.items()}
    known = [spacing for spacing in spacings.values() if spacing is not None]
    if len(known) < len(spacings) or max(known) > SAME * min(known):
        shown = "; ".join(f"{method}: {spacing or 'one rate'}" for method, spacing in sorted(spacings.items()))
        raise UserError(f"The methods' grids are not equally fine at their best learning rates: (factor) {shown}.")


def _common_settings(spec: RunSpec) -> str:
    """Fingerprint of everything that all tuning runs of a task must share."""
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
    chosen = select(Store(arguments.results_dir).read_all(), arguments.scale, key)
    folder = paths.CONF / "tuned" / arguments.scale / key
    folder.mkdir(parents=True, exist_ok=True)
    for method, choice in sorted(chosen.items()):
        (folder / f"{method}.yaml").write_text(choice.to_yaml())
        rank = "" if choice.rank is None else f" adapter.rank={choice.rank}"
        means = ", ".join(f"{rate:g} {choice.curve.mean(rate):.3f}" for rate in choice.curve.rates)
        best = f"lowest mean log loss, or minus success, at {choice.curve.best:g}"
        print(f"{method}: train.lr={choice.lr:g}{rank} ({best}: {means})")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.sweeps.tune family=<family> [scale=...] [results_dir=...]`."""
    return run_command(choose, TuneArguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
