"""The story of one run, read top to bottom: load, score, initialise, train, score again, export."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError

from eva_bench import models
from eva_bench.methods.base import Method
from eva_bench.methods.layer import Adapter
from eva_bench.methods.peft_export import export_adapter
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.recomputation import recomputed
from eva_bench.probes import forgetting
from eva_bench.records.environment import cached_name
from eva_bench.records.record import thin
from eva_bench.records.wandb import group_and_tags
from eva_bench.run import cache, scores, together, train
from eva_bench.run.ahead import outlook
from eva_bench.run.card import base_name, write_card
from eva_bench.run.prepare import Run
from eva_bench.settings.spec import RunSpec, fingerprint, stream_seed, what
from eva_bench.system.errors import UserError
from eva_bench.system.processes import cpu_threads, distributed, is_main_process, keep_freed_memory
from eva_bench.system.progress import Bar, say, warn
from eva_bench.task import Calibration, Rows, TrainData, split_rows


def execute(run: Run) -> None:
    """Everything between a checked specification and a finished record; fills `run.outcome`."""
    spec, meter, outcome = run.spec, run.meter, run.outcome
    seed_everything(spec)
    together.join(_device())
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "spec.json").write_text(spec.to_json() + "\n")

    say("loading model and data")
    with meter.phase("load"):
        head_seed = stream_seed(spec.seed, "head")
        bundle = models.load(spec.model, spec.data, _device(), run.task.outputs, head_seed)
        train_rows, eval_rows = split_rows(spec)
        data = _encoded(run, train_rows, bundle)
        run.method.check_steps(train.total_steps(spec.train, len(data.examples)))
        outcome.model, outcome.data = bundle.origin, data.facts
    run.tracker.start(spec.run_id, spec.what(), *group_and_tags(spec, spec.origins))
    if is_main_process() and not spec.model.sharded:  # which would compute a batch alone
        say(outlook(spec, run.store, run.task, bundle, data.examples, len(eval_rows.rows)))

    with meter.phase("eval_before"):
        outcome.metrics_before = scores.before(run, bundle, eval_rows)
    if run.task.primary not in outcome.metrics_before:
        known = ", ".join(sorted(outcome.metrics_before))
        raise UserError(f"task.primary={run.task.primary} is no metric of {spec.task.name}. Known: {known}.")
    with meter.phase("forgetting_before"):
        outcome.metrics_before |= scores.retained_before(run, bundle)
    say(f"before training: {scores.shown(run, outcome.metrics_before)}")

    with meter.phase("init"):
        adapter = _initialise(run, bundle, data)
    say(
        f"{spec.method.name}: {adapter.trainable_parameters():,} trainable parameters"
        + (f" in {len(adapter.layers)} layers" if adapter.layers else "")
        + f", initialised in {meter.phases['init'].seconds:.1f} s"
    )

    with meter.phase("train"):
        _train(run, bundle, adapter, data, eval_rows)

    with meter.phase("eval"), adapter.merged():
        samples_file = run.folder / "samples.jsonl"
        metrics = scores.evaluate(run, bundle, eval_rows, samples_file, "after training", spec.where.force, adapter)
    with meter.phase("forgetting"), adapter.merged():
        retained = scores.retained(run, bundle) if forgetting.LOSS in outcome.metrics_before else {}
    if spec.eval.every_epoch:
        outcome.epochs = [*outcome.epochs, {"step": outcome.steps} | metrics]
        metrics |= scores.best_epoch(outcome.epochs, run.task.primary)
    outcome.metrics = metrics | retained
    run.store.check_claims()
    outcome.adapter_bytes = _export(run, bundle, adapter, run.folder)


def _encoded(run: Run, rows: Rows, bundle: ModelBundle) -> TrainData:
    """The training examples; cells of a sweep that share a process and differ in nothing here share them."""
    spec, encoded = run.spec, run.session.encoded
    parts = [what(part) for part in (spec.task, spec.model, spec.identity.train_data, spec.data)]
    key = fingerprint([*parts, spec.identity.model.sha256, spec.stage, spec.train.loss_on_prompt, len(rows.rows)])
    if key not in encoded:
        encoded.clear()
        encoded[key] = run.task.train_data(rows.rows, rows.dataset, bundle, spec.data, spec.train)
    return encoded[key]


def initial_factors_file(caches: Path, spec: RunSpec, method: Method) -> Path:
    """Where the initial factors of a run are kept: those that follow from the weights alone once for all seeds."""
    shared = not (method.seeded or method.uses_data)
    return caches / "init" / cached_name(spec.base_init_id if shared else spec.init_id)


def _initialise(run: Run, bundle: ModelBundle, data: TrainData) -> Adapter:
    """The initial factors from the cache or from the method, put into the model."""
    spec, outcome = run.spec, run.outcome
    file = initial_factors_file(run.caches, spec, run.method)
    initial = together.of_first(None if spec.where.force else cache.load_initialisation(file))
    outcome.reused["init"] = initial is not None
    if initial is None:
        seed = stream_seed(spec.seed, "calibration_order")
        share = together.place() if run.method.shares_batches else (0, 1)
        even = spec.model.sharded
        calibration = Calibration(run.task, bundle, data.examples, spec.calibration, seed, share, even)
        initial = run.method.initialise(bundle, calibration, stream_seed(spec.seed, "initialisation"))
        if initial.factors:
            with suppress(OSError, SafetensorError):  # a full disk: a later run computes it again
                cache.save_initialisation(file, initial)
    adapter = run.method.install(bundle, initial)
    outcome.initialisation = initial.facts
    outcome.ranks = adapter.ranks()
    outcome.trainable_parameters = adapter.trainable_parameters()
    return adapter


def _train(run: Run, bundle: ModelBundle, adapter: Adapter, data: TrainData, eval_rows: Rows) -> None:
    """Train, or take the weights that another run with the same training left.

    One process at a time: runs that differ only in their evaluation share the training and its checkpoint.
    """
    spec = run.spec
    finished = Path(spec.where.runs_dir) / "cache" / "train" / cached_name(spec.train_id)
    if distributed():
        _train_now(run, bundle, adapter, data, eval_rows, finished)
        return
    with run.store.claim(f"train-{spec.train_id[:16]}", wait=True):
        found = None if spec.where.force else cache.load_tensors(finished)
        run.outcome.reused["train"] = found is not None
        if found is None:
            _train_now(run, bundle, adapter, data, eval_rows, finished)
        else:
            say("training: done before with the same settings, its weights are taken (force=true trains anew)")
            tensors, facts = found
            adapter.load_state_dict(tensors)
            _keep_facts(run, train.TrainResult(**facts))


def _train_now(
    run: Run, bundle: ModelBundle, adapter: Adapter, data: TrainData, eval_rows: Rows, finished: Path
) -> None:
    """The training loop, its checkpoint, and what it leaves for later runs. Facts are kept even if it fails."""
    spec, result = run.spec, train.TrainResult()
    checkpoint_file = finished.with_suffix(".checkpoint")

    def after_epoch(step: int) -> dict[str, float]:
        samples_file = run.folder / f"samples-step{step}.jsonl"
        with adapter.merged():
            return scores.evaluate(run, bundle, eval_rows, samples_file, f"after step {step}", True, adapter)

    snapshots = train.snapshot_steps(train.total_steps(spec.train, len(data.examples)), spec.train.snapshots)

    def after_step(step: int) -> None:
        if step in snapshots and is_main_process():
            _export(run, bundle, adapter, run.folder / "snapshots" / f"step-{step}")

    run.session.stop.deferred = True
    try:
        with Bar("training") as bar, recomputed(bundle.module, spec.train.gradient_checkpointing):
            train.fit(
                bundle,
                adapter,
                run.method,
                run.task,
                data.examples,
                spec.train,
                spec.seed,
                checkpoint_file=checkpoint_file,
                stop=run.session.stop,
                progress=run.while_ours(bar),
                log=run.tracker.log,
                result=result,
                after_step=after_step,
                after_epoch=after_epoch if spec.eval.every_epoch else None,
            )
    finally:
        run.session.stop.deferred = False
        _keep_facts(run, result)
    if is_main_process():
        run.store.check_claims()
        try:
            cache.save_tensors(finished, adapter.state_dict(), asdict(result) | {"curve": thin(result.curve)})
            checkpoint_file.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:  # the checkpoint stays
            warn(f"the trained weights cannot be kept for later runs ({error}); this run goes on")


def _keep_facts(run: Run, result: train.TrainResult) -> None:
    """What training found out, into the outcome."""
    outcome = run.outcome
    outcome.steps, outcome.tokens, outcome.resumed = result.steps, result.tokens, result.resumed
    outcome.curve, outcome.epochs = thin(result.curve), result.epochs
    outcome.micro_batch_size, outcome.waited_s = result.micro_batch_size, result.waited_s


def _export(run: Run, bundle: ModelBundle, adapter: Adapter, folder: Path) -> int:
    """Stock PEFT LoRA where the method can be one, otherwise the whole checkpoint; a model card.

    Returns:
        Size of the weights in bytes.
    """
    as_adapter = bool(adapter.layers) and run.method.exports_adapter
    if as_adapter:
        factors, (base, revision) = run.method.export(adapter), base_name(run.spec)
        head, biases = bundle.head, adapter.biases
        export_adapter(folder / "adapter", factors, bundle.module, bundle.kind, head, base, biases, revision)
    else:
        with adapter.plain_model():
            models.save(bundle, folder / "model")
    weights = folder / ("adapter" if as_adapter else "model")
    write_card(weights, run.spec, run.outcome.metrics_before, run.outcome.metrics, run.task.outputs)
    return sum(file.stat().st_size for file in weights.glob("*.safetensors"))


def seed_everything(spec: RunSpec) -> None:
    """Same specification, same machine, same number of threads: same bytes."""
    keep_freed_memory()
    torch.set_num_threads(cpu_threads(spec.where.threads))
    torch.manual_seed(stream_seed(spec.seed, "global"))  # for libraries that draw from it
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory shows operations that read it unwritten: a tool for debugging, paid for in every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _device() -> torch.device:
    local_rank = os.environ.get("LOCAL_RANK", "0")
    return torch.device(f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu")
