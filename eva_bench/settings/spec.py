"""The specification of a run: typed settings, identities of model and data, fingerprints. No torch here."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from eva_bench.assets.identity import DataIdentity, ModelIdentity
from eva_bench.settings.schema import (
    AdapterSettings,
    CalibrationSettings,
    DataSettings,
    EvalSettings,
    MethodChoice,
    ModelSettings,
    ScaleSettings,
    TaskChoice,
    TrainSettings,
    WhereSettings,
    is_where,
    where_field,
    where_settings,
)
from eva_bench.system.files import sha256_of
from eva_bench.system.frozen import Frozen

# Raised by hand whenever a change of the code changes numbers: old records then count as stale.
PROTOCOL = 3
CELL = {"method", "task", "scale", "model", "seed", "stage", "suite"}  # settings that choose a cell


class Identities(Frozen):
    """What model and data are, whatever their folders are called."""

    model: ModelIdentity
    train_data: DataIdentity
    eval_data: DataIdentity


class Origins(Frozen):
    """Where values came from: the command line, tuned files, the suite that planned the run."""

    command_line: list[str] = Field(default_factory=list)
    tuned: list[str] = Field(default_factory=list)
    suite: str | None = None


class RunSpec(Frozen):
    """Everything that determines the numbers of a run; and, apart from it, where it works and where values came from.

    A specification can be printed and sent to a colleague: `to_json` and `from_json`.
    """

    protocol: int
    scale: ScaleSettings
    task: TaskChoice
    method: MethodChoice
    model: ModelSettings
    data: DataSettings
    adapter: AdapterSettings
    calibration: CalibrationSettings
    train: TrainSettings
    eval: EvalSettings
    seed: int
    stage: Literal["tune", "final"]
    identity: Identities
    where: WhereSettings = where_field(WhereSettings())
    origins: Origins = where_field(Origins())

    @property
    def init_id(self) -> str:
        """Fingerprint of everything that the initial factors depend on."""
        names = ("protocol", "stage", "model", "data", "method", "adapter", "calibration", "seed")
        parts = {name: what(getattr(self, name)) for name in names}
        identity = {"model": self.identity.model.sha256, "data": what(self.identity.train_data)}
        text = {"format": self.task.format, "loss_on_prompt": self.train.loss_on_prompt}
        return fingerprint(parts | {"identity": identity} | text)

    @property
    def base_init_id(self) -> str:
        """The same for methods that look at nothing but the weights and draw nothing: equal for all seeds and data."""
        parts = {name: what(getattr(self, name)) for name in ("protocol", "model", "method", "adapter")}
        return fingerprint(parts | {"identity": {"model": self.identity.model.sha256}})

    @property
    def train_id(self) -> str:
        """Fingerprint of a training: shared by runs that differ only in evaluation, unless it evaluates on its way."""
        parts = {"init": self.init_id, "train": what(self.train)}
        if self.eval.every_epoch:
            parts |= self._evaluation()
        return fingerprint(parts)

    @property
    def run_id(self) -> str:
        """Name of the record: task, method, scale, seed, and the fingerprint of everything."""
        digest = fingerprint({"train": self.train_id, "scale": self.scale.name} | self._evaluation())
        name = f"{self.task.name}-{self.method.name}-{self.scale.name}-s{self.seed}".replace("/", "_")
        return f"{name}-{digest[:10]}"

    def _evaluation(self) -> dict[str, Any]:
        return {"task": what(self.task), "eval": what(self.eval), "eval_data": what(self.identity.eval_data)}

    def what(self) -> dict[str, Any]:
        """The specification as its record keeps it: without where to run."""
        return what(self)

    def to_json(self) -> str:
        """All of it as one line of JSON."""
        return self.model_dump_json(by_alias=True)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """The specification that `to_json` wrote."""
        return cls.model_validate_json(text)


def private_settings(spec: RunSpec, origins: Origins) -> set[str]:
    """Settings beyond the cell: a run that has any is a private experiment, not part of the benchmark.

    Where files lie is no change, but another model or other data are. Nor is a committed recipe, with the tuned values
    of its own folder or none: `recipe=paper/glue_deberta/rte tuned=paper/glue_deberta/rte/eva`.
    """
    chosen = dict(item.split("=", 1) for item in origins.command_line if "=" in item)
    keys = {item.split("=")[0].lstrip("+~") for item in origins.command_line} - CELL - where_settings()
    recipe, tuned = chosen.get("recipe"), chosen.get("tuned")
    if recipe and (tuned in (None, "null") or str(tuned).startswith(f"{recipe}/")):
        keys -= {"recipe", "tuned"}
    if _own_data(spec):
        keys.add("data.root")
    if _own_model(spec):
        keys.add("model.path")
    return keys


def _own_data(spec: RunSpec) -> bool:
    """Whether the rows are not those that the scale's tables are about."""
    local = spec.scale.name == "pocket" and spec.data.source == "hub"
    return local or any(data.as_pinned is False for data in (spec.identity.train_data, spec.identity.eval_data))


def _own_model(spec: RunSpec) -> bool:
    """Whether the checkpoint is a folder of somebody's, not the one that the model's settings name."""
    known = (spec.model.name, spec.model.hub_id, (spec.model.hub_id or "").rpartition("/")[2])
    return spec.identity.model.checkpoint not in known


def what(value: Any) -> Any:
    """A section as plain values, without the settings that say where or how to run."""
    if not isinstance(value, Frozen):
        return value
    fields = type(value).model_fields
    return {name: what(item) for name, item in value if not (name in fields and is_where(fields[name]))}


def fingerprint(content: Any) -> str:
    """SHA-256 of canonical JSON: independent of key order, process and platform.

    A setting that is null does not count, so that a new optional setting leaves the old fingerprints as they are.
    """
    return sha256_of(json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"), allow_nan=False))


def _canonical(value: Any) -> Any:
    """1 and 1.0 are the same setting whether typed on the command line or read from YAML."""
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def stream_seed(seed: int, stream: str) -> int:
    """A seed for one named random stream (data order, initialisation, ...), derived from the run's seed."""
    return int(sha256_of(f"{seed}/{stream}")[:12], 16)
