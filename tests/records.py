"""Made-up specifications and records for tests of stores, tables, figures and the report."""

from __future__ import annotations

from typing import Any

from eva_bench.records.record import Record
from eva_bench.settings.spec import RunSpec

SPEC = {
    "protocol": 1,
    "scale": {"name": "pocket"},
    "task": {
        "name": "gsm8k",
        "family": "math",
        "primary": "exact_match_strict",
        "dataset": "openai/gsm8k",
        "pocket": "pocket/gsm8k",
        "format": {"prompt": "{question}"},
    },
    "method": {"name": "lora", "rank": 8, "alpha": 8.0},
    "model": {"name": "pocket_language", "kind": "language", "targets": ["q_proj"]},
    "data": {"source": "pocket", "pocket_train": "pocket/gsm8k"},
    "adapter": {"rank": 8, "alpha": 8.0},
    "calibration": {"batch_size": 4},
    "train": {
        "lr": 1e-3,
        "steps": 10,
        "batch_size": 4,
        "micro_batch_size": 4,
        "schedule": "constant",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
    },
    "eval": {"batch_size": 4},
    "seed": 0,
    "stage": "final",
    "identity": {
        "model": {"checkpoint": "pocket_language", "sha256": "0"},
        "train_data": {"name": "pocket/gsm8k", "sha256": "1"},
        "eval_data": {"name": "pocket/gsm8k", "sha256": "1"},
    },
}


def updated(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with some entries replaced."""
    changed = {key: updated(base.get(key, {}), value) for key, value in changes.items() if isinstance(value, dict)}
    return base | changes | changed


def make_spec(changes: dict[str, Any] | None = None, **choices: Any) -> RunSpec:
    """A specification; `changes` are nested, `choices` name scale, task, method or another top-level value."""
    named = {key: {"name": value} if key in ("scale", "task", "method") else value for key, value in choices.items()}
    return RunSpec.model_validate(updated(updated(SPEC, named), changes or {}))


def record(
    method: str = "lora", seed: int = 0, score: float = 0.5, scale: str = "pocket", spec: dict | None = None,
    task: str = "gsm8k", **changes,
) -> Record:  # fmt: skip
    """A finished run of a method, whose scores follow from `score`."""
    metrics = {"exact_match_strict": score, "exact_match_flexible": score, "reference_loss": 2 - score, "samples": 400}
    values = {
        "run_id": f"{task}-{method}-{scale}-{seed}-{score}-{len(str(spec))}",
        "train_id": f"{task}-{method}-{scale}-{seed}",
        "init_id": "i",
        "status": "ok",
        "spec": make_spec(spec, method=method, seed=seed, scale=scale, task=task),
        "metrics": metrics,
        "metrics_before": metrics | {"exact_match_strict": 0.02},
        "trainable_parameters": 1000,
        "costs": {"init": {"seconds": 1.0, "peak_bytes": 1}, "train": {"seconds": 10.0 + seed, "peak_bytes": 2}},
        "curve": [(step, 2.0 / step, 1.0 / step, 1e-3) for step in range(1, 11)],
        "steps": 10,
        "tokens": 100,
        "ranks": {f"layers.{i}.{name}": 8 for i in range(2) for name in ("q_proj", "up_proj")},
        "code": {"commit": "a" * 40},
        "finished": "2025-01-01T00:00:00+00:00",
        "origins": {"command_line": [f"method={method}", f"task={task}", f"seed={seed}"]},
    }
    return Record(**(values | changes))
