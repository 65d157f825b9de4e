"""The first line and the final block of a run on the terminal. No torch here."""

from __future__ import annotations

import math
from pathlib import Path

from eva_bench.records.record import Record
from eva_bench.settings.spec import RunSpec, private_settings
from eva_bench.system import paths

# What another order of the same sums changes by the end of a training, with room (docs/decisions.md).
ROUNDED_LOSS = 0.01  # relative
ROUNDED_SCORE = 0.01
ROUNDED_ANSWERS = 2
COUNTS = ("samples", "step")  # metrics that are no fraction
PREDICTIONS = {  # what enters the loss, by the kind of model
    "language": "tokens",
    "classifier": "texts",
    "vision": "images",
    "decision": "action components",
}


def introduction(spec: RunSpec) -> str:
    """What this run is, whether its learning rate was chosen, and how to run the real thing."""
    lines = [f"eva-bench: {spec.method.name} on {spec.task.name}, seed {spec.seed}; {inputs(spec)}."]
    if untuned(spec):
        lines.append(
            f"{spec.method.name} has no tuned values for this task: it runs at the recipe's "
            f"train.lr={spec.train.lr:g}. "
            f"To tune it: suite=rates method={spec.method.name}, then make select (docs/add_a_method.md)."
        )
    own = sorted(private_settings(spec, spec.origins))
    if own and spec.stage == "final" and Path(spec.where.results_dir) == Path("results"):
        lines.append(
            f"An experiment of your own ({', '.join(own)}): tables show it apart from the benchmark. "
            "results_dir=mine keeps its record apart, too."
        )
    if not own_inputs(spec) and spec.model.kind != "decision":  # there is no public model for control
        lines.append(f"Next: {spec.scale.hint.format(task=spec.task.name)}.")
    return "\n".join(lines)


def inputs(spec: RunSpec) -> str:
    """Scale, model and training data; the scale's title only where both are the scale's own."""
    identity, own = spec.identity, own_inputs(spec)
    scale = f"settings of scale={spec.scale.name}" if own else f"scale={spec.scale.name} ({spec.scale.title})"
    model = f"model '{identity.model.checkpoint}'" + (" (model.path)" if "model.path" in own else "")
    data = f"training data '{identity.train_data.name}'" + (" (data.root)" if "data.root" in own else "")
    return f"{scale}, {model}, {data}"


def own_inputs(spec: RunSpec) -> list[str]:
    """Which of model and data are the user's own instead of the scale's."""
    own_model = spec.model.path is not None and not spec.model.path.startswith("pocket:")
    return [name for name, own in (("model.path", own_model), ("data.root", spec.data.root is not None)) if own]


def untuned(spec: RunSpec) -> bool:
    """Whether other methods have tuned values here, while this one runs at the recipe's rate unasked."""
    asked = any(item.split("=")[0] in ("train.lr", "tuned") for item in spec.origins.command_line)
    if asked or spec.origins.tuned or spec.stage == "tune":
        return False
    folders = (paths.CONF / "tuned" / spec.scale.name / key for key in (spec.task.name, spec.task.family))
    return any(folder.is_dir() for folder in folders)


def summary(record: Record, spec: RunSpec, record_path: Path, tracking: str | None = None) -> str:
    """Score before and after, costs, and where record, adapter and W&B run are."""
    folder = Path(spec.where.runs_dir) / record.run_id
    lines = ["", f"{record.status.upper()}  {record.run_id}"]
    if record.error:
        lines.append(f"  reason      {record.error.splitlines()[0]}")
    lines += [f"  {name:<27} {line}" for name, line in _metric_lines(record)]
    if record.trainable_parameters is not None:
        predicted = f"{record.tokens:,} {PREDICTIONS[spec.model.kind]}"
        lines.append(f"  trained     {record.trainable_parameters:,} parameters, {record.steps} steps, {predicted}")
    if record.costs:
        seconds = ", ".join(f"{phase} {cost.seconds:.1f} s" for phase, cost in record.costs.items())
        peak = max(cost.peak_bytes for cost in record.costs.values())
        lines.append(f"  costs       {seconds}; peak {peak / 1e9:.2f} GB")
    lines.append(f"  record      {record_path}")
    for name, what in (("adapter", "stock PEFT LoRA"), ("model", "whole checkpoint")):
        if (folder / name).is_dir():
            lines.append(f"  {name:<11} {folder / name}  ({what})")
    if (folder / "episode.gif").is_file():
        lines.append(f"  film        {folder / 'episode.gif'}")
    if tracking:
        lines.append(f"  W&B         {tracking}")
    if record.status == "interrupted":
        lines.append("  The checkpoint is kept: the same command continues where this run stopped.")
    return "\n".join(lines)


def comparison(known: Record, again: Record) -> str:
    """Whether a repeated run gave what its record says; if not, by how much, and what differs between the two."""
    names = sorted({*known.metrics, *again.metrics})
    pairs = [(name, known.metrics.get(name), again.metrics.get(name)) for name in names]
    different = [f"{name} {' recorded, '.join(_until_they_differ(a, b))} now" for name, a, b in pairs if a != b]
    if not different:
        return "reproduced: every metric equals the record, to the last digit"
    causes = _causes(known, again)
    why = f"the two differ in {', '.join(causes)}" if causes else "threads, hardware, versions and code are the same"
    if causes[:1] == ["threads"]:
        why += f"; threads={known.hardware['threads']} gives the record's digits"
    said = f"{'; '.join(different)} ({why})"
    if not set(causes) - {"code"}:
        return f"not equal to the record: {said}"
    bounds = f"losses within {100 * ROUNDED_LOSS:g} %, scores within {100 * ROUNDED_SCORE:g} point or "
    bounds += f"{ROUNDED_ANSWERS} answers"
    rows = known.metrics.get("samples", math.inf)
    if all(_is_rounding(name, a, b, rows) for name, a, b in pairs):
        return f"agrees with the record up to rounding, {bounds}: {said}"
    return f"not equal to the record, by more than rounding explains ({bounds}): {said}"


def _is_rounding(name: str, recorded: float | None, now: float | None, rows: float) -> bool:
    """Whether another order of the same sums explains a difference: training makes rounding errors grow."""
    if recorded is None or now is None:
        return False
    if "loss" in name or name.endswith("return"):
        return math.isclose(recorded, now, rel_tol=ROUNDED_LOSS)
    return name in COUNTS or abs(recorded - now) <= max(ROUNDED_SCORE, ROUNDED_ANSWERS / rows) + 1e-9


def _until_they_differ(recorded: float | None, now: float | None) -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart, and one more."""
    if recorded is None or now is None:
        first, second = ("nothing" if value is None else f"{value:.4g}" for value in (recorded, now))
        return first, second
    digits = next((n for n in range(3, 17) if f"{recorded:.{n}g}" != f"{now:.{n}g}"), 16)
    return f"{recorded:.{digits + 1}g}", f"{now:.{digits + 1}g}"


def _causes(known: Record, again: Record) -> list[str]:
    """What can change the last digits and is not the same, the number of threads first."""
    causes = [
        name for name in ("threads", "gpu", "machine", "system") if known.hardware.get(name) != again.hardware.get(name)
    ]
    causes += [
        name
        for name in sorted({*known.packages, *again.packages})
        if known.packages.get(name) != again.packages.get(name)
    ]
    return causes + (["code"] if known.code != again.code else [])


def _metric_lines(record: Record) -> list[tuple[str, str]]:
    lines = []
    primary = f"best/{record.spec.task.primary}"  # the other metrics of the best epoch are in the record
    for name in sorted({*record.metrics_before, *record.metrics} - {"samples"}):
        if name.startswith("best/") and name != primary:
            continue
        before, after = record.metrics_before.get(name), record.metrics.get(name)
        lines.append((name, f"{shown(name, before)} -> {shown(name, after)}"))
    return lines


def shown(name: str, value: float | None) -> str:
    """A metric for a person: a share in percent, a loss as it is."""
    if value is None:
        return "–"
    kind = name.rpartition("/")[2]
    if kind in COUNTS:
        return f"{value:.0f}"
    return f"{value:.3f}" if "loss" in kind or kind.endswith("return") else f"{100 * value:.1f} %"
