"""`make select`: the best learning rate per method from stage=tune records, as ordinary config files.

Only records scored on validation data count. Every method is judged on the same grid of learning rates with
the same seeds; the file names the records that the choice came from.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

from eva_bench.errors import UserError
from eva_bench.progress import warn
from eva_bench.record import Record
from eva_bench.spec import CONF, fingerprint
from eva_bench.store import Store


def merit(records: Sequence[Record]) -> tuple[float, float]:
    """What a learning rate is judged by: the task's primary metric, then a low loss on the reference answers.

    One at which a run failed (a loss that is not finite) is the worst.
    """
    if any(record.status == "failed" for record in records):
        return -math.inf, -math.inf
    primary = records[0].spec["task"]["primary"]
    losses = [r.metrics["reference_loss"] for r in records if "reference_loss" in r.metrics]
    return mean(r.metrics[primary] for r in records), -mean(losses) if losses else 0.0


def select(records: Sequence[Record], scale: str, family: str) -> dict[str, tuple[float, list[Record]]]:
    """Per method the learning rate with the best mean on validation data, and the records behind it.

    Raises:
        UserError: no tuning records, or methods whose grids differ.
    """
    by_method: dict[str, dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
    settings = set()
    for record in records:
        spec = record.spec
        finished = record.status in ("ok", "failed")
        if finished and (spec["stage"], record.scale, spec["task"]["family"]) == ("tune", scale, family):
            by_method[record.method][spec["train"]["lr"]].append(record)
            settings.add(_common_settings(spec))
    if len(settings) > 1:
        raise UserError(
            f"The stage=tune records of '{family}' at scale '{scale}' differ in more than method, seed and learning "
            "rate (model, data, length of training or protocol): move those that no longer count out of records/."
        )
    if not by_method:
        raise UserError(f"No stage=tune records of family '{family}' at scale '{scale}': run the grid first (docs/protocol.md).")
    grids = {method: sorted((lr, len(found)) for lr, found in rates.items()) for method, rates in by_method.items()}
    if len({str(grid) for grid in grids.values()}) > 1:
        shown = "; ".join(f"{method}: {grid}" for method, grid in sorted(grids.items()))
        raise UserError(f"The methods were not tuned on one common grid: (learning rate, runs) {shown}.")
    chosen = {}
    for method, rates in by_method.items():
        best = max(rates, key=lambda lr: merit(rates[lr]))
        chosen[method] = (best, rates[best])
    return chosen


def _common_settings(spec: dict) -> str:
    """Fingerprint of everything that all tuning runs must share."""
    train = {key: value for key, value in spec["train"].items() if key != "lr"}
    return fingerprint({k: v for k, v in spec.items() if k not in ("method", "seed", "train")} | {"train": train})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write conf/tuned/<scale>/<family>/<method>.yaml for every tuned method."""
    wanted = dict(item.split("=", 1) for item in (sys.argv[1:] if arguments is None else arguments))
    scale, family = wanted.get("scale", "pocket"), wanted.get("family", "math")
    try:
        chosen = select(list(Store(wanted.get("results", "results")).read_all()), scale, family)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folder = CONF / "tuned" / scale / family
    folder.mkdir(parents=True, exist_ok=True)
    grid = {record.spec["train"]["lr"] for record in Store(wanted.get("results", "results")).read_all()
            if record.spec["stage"] == "tune"}  # fmt: skip
    for method, (lr, records) in sorted(chosen.items()):
        if lr in (min(grid), max(grid)):
            warn(f"{method}: the best learning rate {lr:g} is at the edge of the grid; a wider grid may be better")
        sources = "\n".join(f"#   {record.run_id}" for record in sorted(records, key=lambda r: r.run_id))
        (folder / f"{method}.yaml").write_text(
            f"# @package _global_\n# Written by `make select`: the best of a grid on validation data. From the records\n{sources}\n"
            f"train:\n  lr: {float(lr)!r}\n"
        )
        primary, loss = merit(records)
        print(f"{method}: train.lr={lr:g} ({records[0].spec['task']['primary']} {primary:.3f}, loss {-loss:.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
