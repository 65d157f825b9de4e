"""Runs as the page carries them: a line each for the list, a JSON each for when a run is opened. No torch here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from eva_bench.reporting.archive import Run
from eva_bench.reporting.tables.facts import FACTS

POINTS = 60  # of a curve
SAMPLES = 3
CHARACTERS = 600  # of one text of a sample

COLUMNS = (
    *("run", "task", "method", "scale", "seed", "stage", "status", "metric", "score", "before", "parameters", "lr"),
    *("train s", "finished"),
)


def run_index(runs: Sequence[Run]) -> Markup:
    """Columns and rows of the list of runs, as JSON that is safe inside a script element."""
    return _json({"columns": COLUMNS, "rows": [_line(run) for run in runs]})


def _line(run: Run) -> list[Any]:
    who = [run.run_id, run.task, run.method, run.scale, run.seed, run.stage, run.status, run.primary]
    scores = [_short(run.metrics.get(run.primary)), _short(run.metrics_before.get(run.primary))]
    return [*who, *scores, run.trainable_parameters, run.lr, FACTS["train_seconds"](run), (run.finished or "")[:16]]


def runs_as_json(runs: Sequence[Run], runs_dir: Path) -> dict[str, Any]:
    """Everything about every run; what many runs share (settings, versions, machine) stands once.

    Returns:
        shared: JSON of the list of shared parts; each: run_id -> JSON whose `settings` and `made_with` are
        positions in it.
    """
    shared: dict[str, int] = {}

    def once(part: Any) -> int:
        return shared.setdefault(json.dumps(part, sort_keys=True), len(shared))

    each = {}
    for run in runs:
        made_with = {**run.packages, **{str(key): value for key, value in run.hardware.items()}}
        shared_parts = {"settings": once(run.settings), "made_with": once(made_with)}
        each[run.run_id] = _json(_detail(run, runs_dir) | shared_parts)
    return {"shared": _json([json.loads(part) for part in shared]), "each": each}


def _detail(run: Run, runs_dir: Path) -> dict[str, Any]:
    scores = {name: [_short(run.metrics_before.get(name)), _short(value)] for name, value in run.metrics.items()}
    costs = {p: [c.seconds, c.memory_bytes, bool(run.reused.get(p))] for p, c in run.costs.items()}
    return {
        "title": f"{run.method} on {run.task}, seed {run.seed}",
        "status": run.status,
        "error": run.error,
        "metrics": scores,
        "curve": [[_short(number) for number in point[:3]] for point in _thinned(run.curve)],
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
        "command line": " ".join(run.command_line),
        "tuned values": ", ".join(run.origins.tuned),
        "suite": run.origins.suite,
        "protocol": run.protocol,
        "run_id": run.run_id,
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
    return value[:CHARACTERS] + " …" if isinstance(value, str) and len(value) > CHARACTERS else value


def _thinned(curve: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """At most about POINTS points, the last one among them."""
    step = max(1, -(-len(curve) // POINTS))
    kept = list(curve[::step])
    return kept if not curve or kept[-1] is curve[-1] else [*kept, curve[-1]]


def _short(value: float | None) -> float | str | None:
    """Four significant digits; JSON has no NaN and no infinity, so those become words."""
    if value is None or isinstance(value, bool):
        return value
    return float(f"{value:.4g}") if abs(value) < float("inf") else str(value)


def _json(value: Any) -> Markup:
    def dumps(content: Any, **_: Any) -> str:
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False)

    return htmlsafe_json_dumps(value, dumps=dumps)
