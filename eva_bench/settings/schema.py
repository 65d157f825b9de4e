"""The one place of every setting: its name, type, allowed values and bounds, and whether it says *what* or *where*.

A setting marked by `where_field` says where or how to run and cannot change a number: it enters no fingerprint and no
record, and using it does not make a run a private experiment. Everything else follows from these classes: Hydra's
schema, the refusal of bad values, fingerprints, the summary of a command line. Never imports torch.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.fields import FieldInfo

from eva_bench.system.frozen import Frozen


def where_field(default: Any, **bounds: Any) -> Any:
    """A setting that says where or how to run, with its default."""
    return Field(default, json_schema_extra={"where": True}, **bounds)


def is_where(field: FieldInfo) -> bool:
    """Whether a setting says where or how to run, not what."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("where"))


class ScaleSettings(Frozen):
    """A scale: which models, which rows, how long."""

    name: str
    title: str = where_field("")  # what a run at this scale is, one line on the terminal
    hint: str = where_field("")  # how to run the next bigger thing


class Choice(Frozen):
    """A task or method by its name; its own values are checked by the class that `_target_` names.

    Its identity is its name, its values and `version`, which its author raises when its numbers change. Where its class
    lives does not count.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    name: str
    version: int = Field(1, ge=1)
    target: str = Field("", alias="_target_", json_schema_extra={"where": True})

    @property
    def values(self) -> dict[str, Any]:
        """The values of the class: everything but its name, version and address."""
        ours, optional = Choice.model_fields, type(self).model_fields
        return {name: value for name, value in self if name not in ours and not (name in optional and value is None)}


class MethodChoice(Choice):
    """A method of `conf/method/`."""

    group: str = where_field("")  # what kind of method it is, for the list of `--help`

    @property
    def values(self) -> dict[str, Any]:
        """The values of the class."""
        return {name: value for name, value in super().values.items() if name != "group"}


class TaskChoice(Choice):
    """A task of `conf/task/`."""

    family: str
    primary: str  # the metric shown first
    dataset: str  # manifest name of the real rows
    pocket: str | None = None  # manifest name of the generated stand-in
    format: dict[str, Any]  # how a row becomes text
    harness: str | list[str] | None = None  # task YAMLs of tasks/lm_eval/
    chance: float | None = None  # what guessing scores

    @property
    def values(self) -> dict[str, Any]:
        """The values of the class, its name included."""
        return {"name": self.name} | super().values


class ModelSettings(Frozen):
    """A model of `conf/model/`."""

    name: str
    kind: Literal["language", "classifier", "vision", "decision"]
    hub_id: str | None = None
    revision: str | None = None
    licence: str | None = where_field(None)  # of the weights
    path: str | None = where_field(
        None, min_length=1
    )  # a local checkpoint; `pocket:<name>` is one that the package carries
    targets: list[str]  # last parts of the names of the adapted layers
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: str = "sdpa"
    sharded: bool = where_field(False)  # in a job of several processes each holds a part of the weights (FSDP)
    architecture: dict[str, Any] | None = where_field(
        None
    )  # its config.json in short, for a plan without the checkpoint


class DataSettings(Frozen):
    """Which rows, and how they become examples."""

    root: str | None = where_field(None)  # folder of local data sets
    source: Literal["pocket", "hub"]
    train: str | None = None  # entry of tasks/manifest/ used where source=hub; null: the task's own
    pocket_train: str | None = None  # entry used where source=pocket
    rows: int | None = Field(None, gt=0)  # training rows, drawn once for all seeds; null: all
    rows_seed: int | None = Field(None, ge=0)  # of that draw, apart from the run's seed
    holdout: int = Field(0, ge=0)  # training rows kept aside for stage=tune where a data set has no validation split
    max_length: int | None = Field(None, gt=0)  # tokens; or steps of a trajectory
    too_long: Literal["truncate", "drop"] = "truncate"
    image_size: int | None = Field(None, gt=0)  # pixels
    normalisation: str | None = None  # of images, by name
    official_sizes: bool | None = None  # images: refuse splits whose sizes are not the official ones
    workers: int = where_field(0, ge=0)  # processes that decode images


class AdapterSettings(Frozen):
    """The adapter, shared by all low-rank methods of a table."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    scaling: Literal["rslora"] | None = None  # rslora: alpha / sqrt(rank); null: alpha / rank
    magnitude: bool | None = None  # DoRA's trained row norms with any initialisation


class CalibrationSettings(Frozen):
    """Batches for initialisations that read data."""

    batch_size: int = Field(gt=0)
    rows: int | None = Field(None, gt=0)  # at most so many training examples; null: as many as the method asks for


class TrainSettings(Frozen):
    """The training loop."""

    lr: float = Field(gt=0)
    lr_ratio: float | None = Field(None, gt=0)  # LoRA+: learning rate of B over that of A
    steps: int | None = Field(None, gt=0)  # optimiser steps; overrides epochs
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(gt=0)  # examples of one optimiser step, over all processes
    micro_batch_size: int = Field(gt=0)  # examples of one forward pass
    schedule: Literal["constant", "linear", "cosine"]
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0)  # of matrices, but for factors that hold a part of the pretrained weight
    decay_all_factors: bool | None = None  # true: of those, too
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["float32", "bf16", "fp16"] = "float32"  # of the autocast
    loss_on_prompt: bool = False
    gradient_checkpointing: bool = where_field(
        False
    )  # activations computed again in the backward pass: memory for time
    checkpoint_minutes: float = where_field(10.0, ge=0)  # 0: after every step
    snapshots: int = where_field(0, ge=0)  # exports on the way, at so many logarithmically spaced steps, for probes


class EvalSettings(Frozen):
    """The evaluation."""

    batch_size: int = Field(gt=0)
    limit: int | None = Field(None, gt=0)  # first rows only
    max_new_tokens: int | None = Field(None, gt=0)  # of generated answers
    precision: Literal["float32", "bf16"] | None = None  # of the autocast; null: float32
    every_epoch: bool = False  # evaluate after every epoch, too; `best/<metric>` is of the best one
    chunk: int = Field(512, gt=0)  # rows after which samples are on disk, so that an evaluation can continue
    record_video: bool = where_field(False)  # control: write one episode as an animation


class TrackingSettings(Frozen):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "off"] = "auto"  # auto: online if logged in, otherwise offline
    project: str = "eva-bench"


class WhereSettings(Frozen):
    """Where and how a run works: none of these can change a number."""

    results_dir: str = where_field("results", min_length=1)
    runs_dir: str = where_field("runs", min_length=1)
    tracking: TrackingSettings = where_field(TrackingSettings())
    threads: int | None = where_field(None, gt=0, le=1024)  # CPU threads; null: as many as cores
    wait: bool = where_field(True)  # wait for another process that runs the same cell, instead of leaving
    force: bool = where_field(False)  # run again although an ok record exists (the old one is kept beside it)


class Settings(WhereSettings):
    """Everything that `run.py` understands. Unknown keys are refused, here and in every YAML."""

    scale: ScaleSettings
    task: TaskChoice
    method: MethodChoice
    model: ModelSettings
    data: DataSettings
    adapter: AdapterSettings
    calibration: CalibrationSettings
    train: TrainSettings
    eval: EvalSettings
    seed: int = Field(0, ge=0)
    stage: Literal["tune", "final"] = "final"  # tune: train without, and score on, validation data; final: test data


def groups() -> dict[str, type[Frozen]]:
    """The groups of settings by name: `train`, `data`, ..."""
    found = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Frozen)}


@cache
def where_settings() -> frozenset[str]:
    """Dotted names of all settings that say where or how to run: `data.root`, `threads`, `tracking.mode`, ..."""
    names = {name for name, field in Settings.model_fields.items() if is_where(field)}
    for group, section in groups().items():
        names |= {
            f"{group}.{name}" for name, field in section.model_fields.items() if is_where(field) or group in names
        }
    return frozenset(names)
