"""Typed settings, methods and tasks from a few values, as a run would compose them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from eva_bench.methods.base import Method
from eva_bench.settings.build import build
from eva_bench.settings.schema import (
    DataSettings,
    EvalSettings,
    MethodChoice,
    ModelSettings,
    TaskChoice,
    TrainSettings,
)
from eva_bench.task import Task
from tests.conftest import CONF

TRAIN = {
    "lr": 1e-2,
    "steps": 3,
    "batch_size": 8,
    "micro_batch_size": 8,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
}


def make_method(values: dict[str, Any]) -> Method:
    """A method from the values of its YAML."""
    return build(MethodChoice.model_validate(values), Method)


def make_task(values: dict[str, Any]) -> Task:
    """A task from the values of its YAML."""
    return build(TaskChoice.model_validate(values), Task)


def task_of(name: str, **changes: Any) -> Task:
    """The task of conf/task/<name>.yaml."""
    return make_task(yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text()) | changes)


def model_settings(name: str, path: Path | str | None, **changes: Any) -> ModelSettings:
    """The model section of conf/model/<name>.yaml, with its files in a folder."""
    values = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    return ModelSettings.model_validate(values | {"path": path if path is None else str(path)} | changes)


def data_settings(**changes: Any) -> DataSettings:
    """The data section."""
    return DataSettings(**{"source": "pocket"} | changes)


def train_settings(**changes: Any) -> TrainSettings:
    """The train section of a short training."""
    return TrainSettings(**TRAIN | changes)


def eval_settings(**changes: Any) -> EvalSettings:
    """The eval section."""
    return EvalSettings(**{"batch_size": 8} | changes)
