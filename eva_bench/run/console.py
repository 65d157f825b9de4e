"""The first line and the final block of a run on the terminal. No torch here."""

from __future__ import annotations

from pathlib import Path

from eva_bench.records.record import Record
from eva_bench.settings.spec import RunSpec

COUNTS = ("samples", "step")  # metrics that are no fraction


def introduction(spec: RunSpec) -> str:
    """Which scale, model and data this run uses, and how to run the real thing."""
    data, model = spec.identity.train_data.name, spec.identity.model.checkpoint
    hint = spec.scale.hint.format(task=spec.task.name)
    return (
        f"eva-bench: {spec.method.name} on {spec.task.name}, seed {spec.seed}; "
        f"scale={spec.scale.name} ({spec.scale.title}), model {model}, training data {data}.\n"
        f"Next: {hint}."
    )


def summary(record: Record, spec: RunSpec, record_path: Path, tracking: str | None = None) -> str:
    """Score before and after, costs, and where record, adapter and W&B run are."""
    folder = Path(spec.where.runs_dir) / record.run_id
    lines = ["", f"{record.status.upper()}  {record.run_id}"]
    if record.error:
        lines.append(f"  reason      {record.error.splitlines()[0]}")
    lines += [f"  {name:<28}{line}" for name, line in _metric_lines(record)]
    if record.trainable_parameters is not None:
        lines.append(f"  trained     {record.trainable_parameters:,} parameters, {record.steps} steps, {record.tokens:,} tokens")
    if record.costs:
        seconds = ", ".join(f"{phase} {cost.seconds:.1f} s" for phase, cost in record.costs.items())
        peak = max(cost.peak_bytes for cost in record.costs.values())
        lines.append(f"  costs       {seconds}; peak {peak / 1e9:.2f} GB")
    lines.append(f"  record      {record_path}")
    for name, what in (("adapter", "stock PEFT LoRA"), ("model", "whole checkpoint")):
        if (folder / name).is_dir():
            lines.append(f"  {name:<11} {folder / name}  ({what})")
    if tracking:
        lines.append(f"  W&B         {tracking}")
    if record.status == "interrupted":
        lines.append("  The checkpoint is kept: the same command continues where this run stopped.")
    return "\n".join(lines)


def comparison(known: Record, again: Record) -> str:
    """Whether a repeated run gave what its record says."""
    names = sorted({*known.metrics, *again.metrics})
    pairs = [(name, known.metrics.get(name), again.metrics.get(name)) for name in names]
    different = [f"{name} {_number(name, a)} recorded, {_number(name, b)} now" for name, a, b in pairs if a != b]
    if not different:
        return "reproduced: every metric equals the record, to the last digit"
    return f"not the same as the record (other hardware or versions give other rounding): {'; '.join(different)}"


def _metric_lines(record: Record) -> list[tuple[str, str]]:
    lines = []
    for name in sorted({*record.metrics_before, *record.metrics} - {"samples"}):
        before, after = record.metrics_before.get(name), record.metrics.get(name)
        lines.append((name, f"{_number(name, before)} -> {_number(name, after)}"))
    return lines


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    kind = name.rpartition("/")[2]
    if kind in COUNTS:
        return f"{value:.0f}"
    return f"{value:.3f}" if "loss" in kind or kind.endswith("return") else f"{100 * value:.1f} %"
