"""Runs as the page carries them: a line each for the list, a block for the details of a hundred. No torch here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_bench.reporting.archive import Run
from eva_bench.reporting.page.blocks import pack, short
from eva_bench.reporting.tables.facts import FACTS

BLOCK = 100  # runs whose details are unpacked together
POINTS = 24  # of a curve
SAMPLES = 3
CHARACTERS = 600  # of one text of a sample

COLUMNS = (
    *("run", "task", "family", "method", "scale", "seed", "stage", "status", "metric", "score", "before"),
    *("parameters", "learning rate", "train s", "finished"),
)


def run_index(runs: Sequence[Run]) -> dict[str, Any]:
    """Columns and rows of the list of runs; the details of row i are in block i // BLOCK."""
    return {"columns": COLUMNS, "rows": [_line(run) for run in runs], "block": BLOCK}


def _line(run: Run) -> list[Any]:
    who = [run.run_id, run.task, run.family, run.method, run.scale, run.seed, run.stage, run.status, run.primary]
    scores = [short(run.metrics.get(run.primary)), short(run.metrics_before.get(run.primary))]
    return [*who, *scores, run.trainable_parameters, run.lr, FACTS["train_seconds"](run), (run.finished or "")[:16]]


def run_blocks(runs: Sequence[Run], runs_dir: Path) -> list[str]:
    """Packed details of all runs. What runs of a block share (settings, versions, machine) stands in it once."""
    return [_block(runs[start : start + BLOCK], runs_dir) for start in range(0, len(runs), BLOCK)]


def _block(runs: Sequence[Run], runs_dir: Path) -> str:
    shared: dict[str, int] = {}

    def once(part: Any) -> int:
        return shared.setdefault(json.dumps(part, sort_keys=True), len(shared))

    each = []
    for run in runs:
        made_with = {**run.packages, **{str(key): value for key, value in run.hardware.items()}}
        each.append(_detail(run, runs_dir) | {"settings": once(run.settings), "made_with": once(made_with)})
    return pack({"runs": each, "shared": [json.loads(part) for part in shared]})


def _detail(run: Run, runs_dir: Path) -> dict[str, Any]:
    scores = {name: [short(run.metrics_before.get(name)), short(value)] for name, value in run.metrics.items()}
    costs = {p: [short(c.seconds), c.memory_bytes, bool(run.reused.get(p))] for p, c in run.costs.items()}
    return {
        "error": run.error,
        "metrics": scores,
        "curve": [[short(number, 3) for number in point[:3]] for point in _thinned(run.curve)],
        "costs": costs,
        "counts": _counts(run),
        "origin": _origin(run),
        "samples": read_samples(runs_dir / run.run_id / "samples.jsonl"),
    }


def _counts(run: Run) -> dict[str, Any]:
    ranks = run.ranks
    return {
        "trained parameters": run.trainable_parameters,
        "adapter bytes": run.adapter_bytes,
        "steps": run.steps,
        "tokens": run.tokens,
        "times resumed": run.resumed,
        "ranks": f"{min(ranks.values())} to {max(ranks.values())} in {len(ranks)} layers" if ranks else None,
    }


def _origin(run: Run) -> dict[str, Any]:
    return {
        "commit": run.code.get("commit"),
        "uncommitted changes": run.code.get("dirty"),
        "finished": run.finished,
        "command line": " ".join(["python run.py", *run.command_line]),
        "tuned values": ", ".join(run.origins.tuned),
        "suite": run.origins.suite,
        "protocol": run.protocol,
    }


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The first answers of a run, where its folder is on this machine: texts cut, lists and checksums left out."""
    samples: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in itertools.islice(file, SAMPLES):
                sample = json.loads(line)
                plain = {k: v for k, v in sample.items() if isinstance(v, (str, int, float, bool))}
                samples.append({k: _cut(v) for k, v in plain.items() if "sha256" not in k})
    except (OSError, ValueError, AttributeError):
        pass  # no samples here, or a file that ends within a line: what was read is shown
    return samples


def _cut(value: Any) -> Any:
    if isinstance(value, float):
        return short(value)
    return value[:CHARACTERS] + " …" if isinstance(value, str) and len(value) > CHARACTERS else value


def _thinned(curve: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """At most about POINTS points, the last one among them."""
    step = max(1, -(-len(curve) // POINTS))
    kept = list(curve[::step])
    return kept if not curve or kept[-1] is curve[-1] else [*kept, curve[-1]]
