"""Runs as the page carries them: one line each for the list, one JSON each that is read when a run is opened. No torch here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from eva_bench.records.record import Record

POINTS = 60  # of a curve
SAMPLES = 3
CHARACTERS = 600  # of one text of a sample

COLUMNS = ("run", "task", "method", "scale", "seed", "stage", "status", "metric", "score", "before", "parameters", "lr", "train s", "finished")


def run_index(records: Sequence[Record]) -> Markup:
    """Columns and rows of the list of runs, as JSON that is safe inside a script element."""
    return _json({"columns": COLUMNS, "rows": [_line(record) for record in records]})


def _line(record: Record) -> list[Any]:
    primary = record.spec["task"].get("primary")
    train = record.costs.get("train", {})
    return [
        record.run_id, record.task, record.method, record.scale, record.seed, record.spec["stage"], record.status, primary,
        _short(record.metrics.get(primary)), _short(record.metrics_before.get(primary)), record.trainable_parameters,
        record.spec["train"].get("lr"), None if record.reused.get("train") else train.get("seconds"), (record.finished or "")[:16],
    ]  # fmt: skip


def runs_as_json(records: Sequence[Record], runs_dir: Path) -> dict[str, Any]:
    """Everything about every run; what many runs share (settings, versions, machine) stands once.

    Returns:
        shared: JSON of the list of shared parts; each: run_id -> JSON whose `settings` and `made_with` are positions in it.
    """
    shared: dict[str, int] = {}

    def once(part: Any) -> int:
        return shared.setdefault(json.dumps(part, sort_keys=True), len(shared))

    each = {}
    for record in records:
        settings = _flat({key: value for key, value in record.spec.items() if key != "seed"})
        made_with = {**record.packages, **{str(key): value for key, value in record.hardware.items()}}
        each[record.run_id] = _json(_detail(record, runs_dir) | {"settings": once(settings), "made_with": once(made_with)})
    return {"shared": _json([json.loads(part) for part in shared]), "each": each}


def _detail(record: Record, runs_dir: Path) -> dict[str, Any]:
    ranks = record.ranks
    return {
        "title": f"{record.method} on {record.task}, seed {record.seed}",
        "status": record.status,
        "error": record.error,
        "metrics": {name: [_short(record.metrics_before.get(name)), _short(value)] for name, value in record.metrics.items()},
        "curve": [[_short(number) for number in point[:3]] for point in _thinned(record.curve)],
        "costs": {phase: [cost.get("seconds"), cost.get("peak_bytes"), bool(record.reused.get(phase))] for phase, cost in record.costs.items()},
        "counts": {
            "trained parameters": record.trainable_parameters, "adapter bytes": record.adapter_bytes, "steps": record.steps,
            "tokens": record.tokens, "times resumed": record.resumed,
            "ranks": f"{min(ranks.values())} to {max(ranks.values())} in {len(ranks)} layers" if ranks else None,
        },
        "origin": {
            "commit": record.code.get("commit"), "uncommitted changes": record.code.get("dirty"), "finished": record.finished,
            "command line": " ".join(record.origins.get("command_line", [])), "tuned values": ", ".join(record.origins.get("tuned", [])),
            "suite": record.origins.get("suite"), "protocol": record.spec.get("protocol"), "run_id": record.run_id,
        },
        "samples": read_samples(runs_dir / record.run_id / "samples.jsonl"),
    }  # fmt: skip


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The first answers of a run, where its folder is on this machine: texts cut, lists and checksums left out."""
    samples: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in itertools.islice(file, SAMPLES):
                sample = json.loads(line)
                samples.append({k: _cut(v) for k, v in sample.items() if isinstance(v, (str, int, float, bool)) and "sha256" not in k})
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


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'lr': 1}} -> {'train.lr': 1}; values that are not set are left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def _json(value: Any) -> Markup:
    return htmlsafe_json_dumps(value, dumps=lambda content, **_: json.dumps(content, separators=(",", ":"), ensure_ascii=False))
