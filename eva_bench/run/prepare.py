"""Before a run: its parts built from the specification, and refused what cannot work, before anything expensive."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from pydantic import ValidationError

from eva_bench import models
from eva_bench.methods.base import Method, target_layers
from eva_bench.records.store import Store
from eva_bench.records.wandb import Tracker
from eva_bench.settings.explain import explain_validation_error
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import UserError
from eva_bench.system.meter import Meter
from eva_bench.system.processes import is_main_process
from eva_bench.system.signals import StopSignal
from eva_bench.task import Task


@dataclass
class Run:
    """One run on its way: what it is, where it works, and what is known so far for its record."""

    spec: RunSpec
    method: Method
    task: Task
    tracker: Tracker
    stop: StopSignal
    store: Store
    meter: Meter = field(default_factory=Meter)
    facts: dict[str, Any] = field(default_factory=dict)  # fields of the record

    @property
    def base(self) -> Path:
        """runs_dir; further processes of a distributed job work in a folder of their own below it."""
        runs = Path(self.spec.options["runs_dir"])
        return runs if is_main_process() else runs / f"rank{os.environ['RANK']}"

    @property
    def folder(self) -> Path:
        return self.base / self.spec.run_id

    @property
    def caches(self) -> Path:
        return self.base / "cache"


def build(values: dict[str, Any], where: str):
    """A method or task from its YAML values. Raises UserError for unknown keys and wrong types."""
    values = dict(values)
    kind = get_class(values.pop("_target_"))
    if where == "method":
        values.pop("name")
    try:
        return kind(**values)
    except ValidationError as error:
        raise UserError(explain_validation_error(error, where)) from error


def prepare(spec: RunSpec, stop: StopSignal, store: Store) -> Run:
    """Build the parts and refuse, before anything expensive, what cannot work. Raises UserError."""
    method, task = build(spec["method"], "method"), build(spec["task"], "task")
    _check_writable(Path(spec.options["runs_dir"]))
    if spec["model"]["kind"] != task.kind:
        raise UserError(f"Task '{task.name}' needs a model of kind {task.kind}; {spec['model']['name']} is of kind {spec['model']['kind']}.")
    skeleton = models.skeleton(model_settings(spec), spec.options["model_path"], task.outputs)
    rank = getattr(method, "rank", None)
    target_layers(skeleton, rank if isinstance(rank, int) else None)
    tracking = spec.options["tracking"] if is_main_process() else {"mode": "off"}
    tracker = Tracker(tracking, Path(spec.options["runs_dir"]) / spec.run_id)
    return Run(spec, method, task, tracker, stop, store)


def model_settings(spec: RunSpec) -> dict[str, Any]:
    """The model section, and what data must look like to it: a vision transformer is built for a size of images."""
    return spec["model"] | {key: spec["data"][key] for key in ("image_size", "normalisation")}


def _check_writable(folder: Path) -> None:
    """Raises UserError if adapters and checkpoints could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"The runs folder '{folder}' cannot be written: {error.strerror}.") from error
