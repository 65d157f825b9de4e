"""The typed schema of all settings: names, types, and the defaults that no recipe sets. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class ScaleConfig:
    name: str = MISSING
    title: str = MISSING  # what a run at this scale is, one line on the terminal
    hint: str = MISSING  # how to run the next bigger thing


@dataclass
class ModelConfig:
    name: str = MISSING
    kind: str = MISSING  # language | classifier | vision | decision
    hub_id: str | None = None
    revision: str | None = None
    path: str | None = None  # a local checkpoint; `pocket:<name>` is one that the package carries
    targets: list[str] = MISSING  # last parts of the names of the adapted layers
    dtype: str = "float32"
    attention: str = "sdpa"


@dataclass
class DataConfig:
    root: str | None = None  # folder of local data sets; where it lies does not enter a fingerprint
    source: str = MISSING  # pocket | hub
    train: str | None = None  # entry of tasks/manifest/ used where source=hub; null: the task's own
    pocket_train: str | None = None  # entry used where source=pocket
    holdout: int = 0  # training rows kept aside for stage=tune where a data set has no validation split
    max_length: int | None = None  # tokens; or steps of a trajectory
    too_long: str = "truncate"  # truncate | drop
    image_size: int | None = None  # pixels
    normalisation: str | None = None  # of images, by name
    official_sizes: bool | None = None  # images: refuse splits whose sizes are not the official ones
    workers: int = 0  # processes that decode images


@dataclass
class AdapterConfig:
    rank: int = MISSING
    alpha: float = MISSING


@dataclass
class CalibrationConfig:
    batch_size: int = MISSING


@dataclass
class TrainConfig:
    lr: float = MISSING
    lr_ratio: float | None = None  # LoRA+: learning rate of B over that of A
    steps: int | None = None  # optimiser steps; overrides epochs
    epochs: float | None = None
    batch_size: int = MISSING  # examples of one optimiser step, over all processes
    micro_batch_size: int = MISSING  # examples of one forward pass
    schedule: str = MISSING  # constant | linear | cosine
    warmup_ratio: float = MISSING
    weight_decay: float = MISSING
    clip_norm: float = 1.0
    precision: str = "float32"  # float32 | bf16 | fp16 (autocast)
    loss_on_prompt: bool = False
    checkpoint_minutes: float = 10.0


@dataclass
class EvalConfig:
    batch_size: int = MISSING
    limit: int | None = None  # first rows only; part of the fingerprint
    max_new_tokens: int | None = None  # of generated answers
    every_epoch: bool = False  # evaluate after every epoch, too; `best/<metric>` is of the best one
    chunk: int = 512  # rows after which samples are on disk, so that an evaluation can continue


@dataclass
class TrackingConfig:
    mode: str = "auto"  # auto: online if logged in, otherwise offline | online | offline | off
    project: str = "eva-bench"


@dataclass
class Config:
    """Everything that `run.py` understands. Unknown keys are refused, here and in every YAML."""

    scale: ScaleConfig = field(default_factory=ScaleConfig)
    task: Any = MISSING
    method: Any = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0
    stage: str = "final"  # tune: train without, and score on, validation data | final: score on test data
    results_dir: str = "results"
    runs_dir: str = "runs"
    threads: int | None = None  # CPU threads; null: as many as cores
    wait: bool = True  # wait for another process that runs the same cell, instead of leaving
    record_video: bool = False  # control: write one episode as an animation
    force: bool = False  # run again although an ok record exists (the old one is kept beside it)


ConfigStore.instance().store(name="schema", node=Config)
