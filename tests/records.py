"""Made-up records for tests of tables, figures and the report."""

from __future__ import annotations

from eva_bench.records.record import Record

SPEC = {
    "stage": "final",
    "protocol": 1,
    "train": {"loss_on_prompt": False, "lr": 1e-3},
    "adapter": {"rank": 8, "alpha": 8.0},
    "model": {"name": "pocket_language", "kind": "language"},
    "task": {"family": "math", "primary": "exact_match_strict"},
    "identity": {
        "model": {"checkpoint": "language", "sha256": "0"},
        "data": {"name": "pocket/gsm8k", "sha256": "1"},
    },
}


def record(
    method: str,
    seed: int,
    score: float,
    scale: str = "pocket",
    spec: dict | None = None,
    task: str = "gsm8k",
    **changes,
) -> Record:
    """A finished run of a method, whose scores follow from `score`."""
    metrics = {"exact_match_strict": score, "exact_match_flexible": score, "reference_loss": 2 - score, "samples": 400}
    changed = {
        key: SPEC.get(key, {}) | value if isinstance(value, dict) else value for key, value in (spec or {}).items()
    }
    values = {
        "run_id": f"{task}-{method}-{scale}-{seed}-{score}-{len(str(spec))}",
        "train_id": f"{task}-{method}-{scale}-{seed}",
        "init_id": "i",
        "status": "ok",
        "scale": scale,
        "task": task,
        "method": method,
        "seed": seed,
        "spec": SPEC | {"seed": seed, "method": {"name": method}} | changed,
        "metrics": metrics,
        "metrics_before": metrics | {"exact_match_strict": 0.02},
        "trainable_parameters": 1000,
        "costs": {"init": {"seconds": 1.0, "peak_bytes": 1}, "train": {"seconds": 10.0 + seed, "peak_bytes": 2}},
        "curve": [[step, 2.0 / step, 1.0 / step, 1e-3] for step in range(1, 11)],
        "steps": 10,
        "tokens": 100,
        "ranks": {f"layers.{i}.{name}": 8 for i in range(2) for name in ("q_proj", "up_proj")},
        "code": {"commit": "a" * 40},
        "finished": "2025-01-01T00:00:00+00:00",
        "origins": {"command_line": [f"method={method}", f"task={task}", f"seed={seed}"]},
    }
    return Record(**(values | changes))
