"""What a model scores in a run, before training and after: the task's metrics, and what is left of its pretraining."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

from eva_bench.assets.catalogue import drawn_anew, pretraining_data
from eva_bench.assets.identity import model_folder
from eva_bench.methods.layer import Adapter
from eva_bench.models.bundle import ModelBundle
from eva_bench.probes import forgetting
from eva_bench.records import samples
from eva_bench.records.environment import cached_name, code_checksum
from eva_bench.run import cache, together
from eva_bench.run.evaluate import answers, reference_loss
from eva_bench.run.prepare import Run
from eva_bench.settings.spec import RunSpec, fingerprint, what
from eva_bench.system.errors import UserError
from eva_bench.system.processes import distributed
from eva_bench.system.progress import Bar, warn
from eva_bench.task import Rows


def before(run: Run, bundle: ModelBundle, rows: Rows) -> dict[str, float]:
    """The untouched model's score, shared by all methods, and by all seeds that have the same rows."""
    spec, force = run.spec, run.spec.where.force
    parts = [what(part) for part in (spec.task, spec.eval, spec.model, spec.identity.eval_data, spec.data)]
    seed = spec.seed if bundle.head or drawn_anew(rows.dataset) else None  # a head is re-initialised for every seed
    key = fingerprint([*parts, spec.identity.model.sha256, spec.stage, spec.protocol, seed])[:16]
    folder = (
        run.caches / "before" / cached_name(f"{spec.task.name.replace('/', '_')}-{key}").removesuffix(".safetensors")
    )
    with nullcontext() if distributed() else run.store.claim(f"before-{key}", wait=True):
        known = together.of_first(None if force else cache.load_metrics(folder / "metrics.json"))
        run.outcome.reused["eval_before"] = known is not None
        if known is not None:
            return known
        metrics = evaluate(run, bundle, rows, folder / "samples.jsonl", "before training", force)
        cache.save_metrics(folder / "metrics.json", metrics)
    return metrics


def retained_before(run: Run, bundle: ModelBundle) -> dict[str, float]:
    """What the untouched model knows of its pretraining data, shared by all tasks, methods and seeds."""
    spec = run.spec
    dataset = pretraining_data(spec.model.name)
    key = fingerprint([what(spec.model), spec.identity.model.sha256, dataset, spec.data.image_size, spec.protocol])
    file = run.caches / "before" / cached_name(f"pretraining-{key[:16]}").replace(".safetensors", ".json")
    known = together.of_first(None if spec.where.force else cache.load_metrics(file))
    if known is None:
        known = retained(run, bundle)
        if known:  # data that is not here today may be tomorrow
            cache.save_metrics(file, known)
    return known


def retained(run: Run, bundle: ModelBundle) -> dict[str, float]:
    """Loss and score on held-out pretraining data; nothing, with a warning, where it is not on this machine."""
    dataset = pretraining_data(run.spec.model.name)
    if dataset is None:
        return {}
    try:
        return forgetting.measure(bundle, dataset, model_folder(run.spec.model), run.spec.data.root)
    except UserError as error:
        warn(f"forgetting is not measured: {error}")
        return {}


def evaluate(
    run: Run,
    bundle: ModelBundle,
    rows: Rows,
    samples_file: Path,
    title: str,
    fresh: bool,
    adapter: Adapter | None = None,
) -> dict[str, float]:
    """Answers scored, and the loss on the reference answers where the task has them.

    Args:
        run: says which task and settings.
        bundle: the model as it answers now.
        rows: to be answered.
        samples_file: JSON lines of the answers; those that the same weights left there are not computed again.
        title: "before training" and the like, for bars and messages.
        fresh: answer all rows again.
        adapter: whose weights answer; None for the untouched model.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    samples.begin(samples_file, _answerer(run.spec, adapter), fresh=fresh)
    spec = run.spec
    with Bar(f"answers {title}") as bar:
        show = run.while_ours(bar)
        found = answers(run.task, bundle, rows.rows, rows.dataset, spec, samples_file, show)
    metrics = run.task.score(found) | {"samples": len(found)}
    with Bar(f"loss {title}", quiet_s=5.0) as bar:
        show = run.while_ours(bar)
        loss = reference_loss(run.task, bundle, rows.rows, rows.dataset, spec, show)
    if loss is None:
        return metrics
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss on the reference answers is {loss} {title} ({run.outcome.steps} steps)")
    return metrics | {"reference_loss": loss}


def _answerer(spec: RunSpec, adapter: Adapter | None) -> str:
    """Checksum of what answers: the code, the initialisation, and the weights as they are now."""
    if adapter is None:
        return fingerprint([code_checksum(), spec.identity.model.sha256])
    return fingerprint([code_checksum(), spec.init_id, cache.checksum(adapter.state_dict())])


def best_epoch(epochs: list[dict[str, float]], primary: str) -> dict[str, float]:
    """`best/<metric>` of the epoch with the best primary metric: the first of equals."""
    best = max(epochs, key=lambda metrics: metrics[primary])
    return {f"best/{name}": value for name, value in best.items() if name != "samples"}


def shown(run: Run, metrics: dict[str, float]) -> str:
    """The primary metric and the loss, for the terminal."""
    value = metrics[run.task.primary]
    loss = metrics.get("reference_loss")
    return f"{run.task.primary} {100 * value:.1f} %" + (
        "" if loss is None else f", loss on the reference answers {loss:.3f}"
    )
