"""Before a run: its parts built from the specification, and refused what cannot work, before anything expensive."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from eva_bench import models
from eva_bench.methods.base import Method
from eva_bench.records.record import Outcome
from eva_bench.records.store import Store
from eva_bench.records.wandb import Tracker
from eva_bench.run import plan
from eva_bench.run.session import Session
from eva_bench.settings.build import build
from eva_bench.settings.schema import TrackingSettings
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import UserError
from eva_bench.system.files import check_writable
from eva_bench.system.meter import Meter
from eva_bench.system.processes import is_main_process
from eva_bench.system.progress import Bar
from eva_bench.task import Task


@dataclass
class Run:
    """One run on its way: what it is, where it works, and what is known so far for its record."""

    spec: RunSpec
    method: Method
    task: Task
    tracker: Tracker
    session: Session
    store: Store
    meter: Meter = field(default_factory=Meter)
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def base(self) -> Path:
        """runs_dir; further processes of a distributed job work in a folder of their own below it."""
        runs = Path(self.spec.where.runs_dir)
        return runs if is_main_process() else runs / f"rank{os.environ['RANK']}"

    @property
    def folder(self) -> Path:
        """Where this run leaves its adapter and its samples."""
        return self.base / self.spec.run_id

    @property
    def caches(self) -> Path:
        """Where runs leave what others can use."""
        return self.base / "cache"

    def while_ours(self, bar: Bar) -> Callable[..., None]:
        """The progress of work that ends where another process took it over."""

        def show(done: int, total: int, note: str = "") -> None:
            self.store.check_claims(now=False)
            bar(done, total, note)

        return show


def _refuse_whole_weights(spec: RunSpec, method: Method) -> None:
    """Raise UserError for what needs all of a weight at once, where each process holds a part."""
    needs = {
        "changes the weights": method.reduces_base,
        "trains the weights": not method.exports_adapter,
        "needs gradients of the weights": method.uses_gradients,
        "needs the norms of the weights": bool(getattr(method, "magnitude", None)),
    }
    if reason := next((reason for reason, true in needs.items() if true), None):
        raise UserError(
            f"model.sharded=true splits the weights among processes, and method={spec.method.name} {reason}."
        )
    if spec.model.kind != "language":
        raise UserError(f"model.sharded=true is for language models; {spec.model.name} is of kind {spec.model.kind}.")


def _refuse_without_use(spec: RunSpec, method: Method) -> None:
    """Raise UserError for a setting that the method would ignore: the run would get an id of its own for nothing."""
    useless = [f"adapter.{n}" for n in ("scaling", "magnitude") if getattr(spec.adapter, n) and not hasattr(method, n)]
    ratio = spec.train.lr_ratio
    if ratio is not None and "B" not in method.trained:
        useless.append("train.lr_ratio")
    if useless:
        raise UserError(f"{useless[0]} does not go together with method={spec.method.name}, which has no use for it.")
    if ratio is not None and hasattr(method, "lr_ratio"):
        raise UserError(f"method={spec.method.name} has its own method.lr_ratio: leave train.lr_ratio=null.")


def prepare(spec: RunSpec, session: Session, store: Store) -> Run:
    """Build the parts and refuse, before anything expensive, what cannot work. Raises UserError."""
    method, task = build(spec.method, Method), build(spec.task, Task)
    check_writable(Path(spec.where.runs_dir), "runs")
    if spec.model.kind != task.kind:
        raise UserError(
            f"Task '{task.name}' needs a model of kind {task.kind}; {spec.model.name} is of kind {spec.model.kind}."
        )
    skeleton = models.skeleton(spec.model, spec.data, task.outputs)
    positions = getattr(getattr(skeleton.module, "config", None), "max_position_embeddings", None)
    if positions and spec.eval.max_new_tokens is not None and spec.eval.max_new_tokens >= positions:
        raise UserError(
            f"eval.max_new_tokens={spec.eval.max_new_tokens} must be below the {positions} positions "
            f"of model {spec.model.name}."
        )
    _refuse_without_use(spec, method)
    method.check(skeleton)
    if spec.model.sharded:
        _refuse_whole_weights(spec, method)
    plan.foresee(spec, skeleton.module)
    tracking = spec.where.tracking if is_main_process() else TrackingSettings(mode="off")
    tracker = Tracker(tracking, Path(spec.where.runs_dir) / spec.run_id)
    return Run(spec, method, task, tracker, session, store)
