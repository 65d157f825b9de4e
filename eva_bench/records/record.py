"""The record of a run: one JSON file, written once. No torch here."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eva_bench.settings.spec import Origins, RunSpec
from eva_bench.system.meter import Cost

SCHEMA_VERSION: Final = 2
CURVE_POINTS = 40  # what a figure of a loss curve needs
DIGITS = 5  # of curves and details; scores keep all of theirs

Status = Literal["ok", "failed", "interrupted", "skipped"]


class Outcome(BaseModel):
    """What a run finds out, filled phase by phase. Fractions are 0-1, times in seconds, sizes in bytes."""

    # NaN and infinity become strings that load again; as JSON's null they would make the record unreadable.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings", validate_assignment=True)

    metrics_before: dict[str, float] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    curve: list[tuple[int, float, float, float]] = Field(
        default_factory=list
    )  # step, loss, gradient norm, learning rate
    epochs: list[dict[str, float]] = Field(default_factory=list)  # metrics after every epoch, where asked for
    steps: int = 0
    tokens: int = 0  # predictions that entered the loss
    resumed: int = 0  # how often training continued from a checkpoint
    micro_batch_size: int | None = None  # of the forward passes: smaller than the specification's if memory ran out
    waited_s: float | None = None  # seconds of training in which the model waited for batches
    trainable_parameters: int | None = None
    adapter_bytes: int | None = None
    ranks: dict[str, int] = Field(default_factory=dict)  # by layer
    initialisation: dict[str, Any] = Field(default_factory=dict)  # facts of the method
    data: dict[str, Any] = Field(default_factory=dict)  # facts about the training examples
    model: dict[str, Any] = Field(default_factory=dict)  # facts about the loaded model
    reused: dict[str, bool] = Field(default_factory=dict)  # which phases came from a cache


class Record(Outcome):
    """Everything known about one run.

    Never in a record: host or user names, absolute paths, tokens.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[2] = SCHEMA_VERSION  # of the file
    run_id: str
    train_id: str
    init_id: str
    status: Status
    spec: RunSpec
    origins: Origins = Field(default_factory=Origins)
    costs: dict[str, Cost] = Field(default_factory=dict)  # by phase
    code: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    finished: str | None = None  # UTC, ISO 8601
    error: str | None = None

    @property
    def scale(self) -> str:
        """Name of the scale."""
        return self.spec.scale.name

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.spec.task.name

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.spec.method.name

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.spec.seed

    @property
    def score(self) -> float | None:
        """The task's primary metric after training."""
        return self.metrics.get(self.spec.task.primary)

    def to_json(self) -> str:
        """The record's file: scores first and one line an entry; curves and details in one line each."""
        content = json.loads(self.model_dump_json(exclude={"spec"}, exclude_none=True))
        content["curve"] = [[_rounded(value) for value in point] for point in thin(self.curve)]
        content["ranks"] = _nested(self.ranks)
        content["initialisation"] = {
            name: _nested(_rounded(value)) for name, value in content["initialisation"].items()
        }
        content["spec"] = _without_nulls(self.spec.what())
        filled = {name: value for name, value in content.items() if value not in ({}, [])}
        ordered = {name: filled[name] for name in (*FIRST, *filled) if name in filled}
        return (
            "{\n"
            + ",\n".join(f" {json.dumps(name)}: {_lines(name, value)}" for name, value in ordered.items())
            + "\n}\n"
        )

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, content: Any) -> Any:
        """Layers by name, as `to_json` found them."""
        if isinstance(content, dict) and isinstance(content.get("initialisation"), dict):
            facts = {name: _flat(value) for name, value in content["initialisation"].items()}
            content = content | {"initialisation": facts}
        if isinstance(content, dict) and "ranks" in content:
            content = content | {"ranks": _flat(content["ranks"])}
        return content


FIRST = ("schema_version", "run_id", "status", "error", "metrics", "metrics_before")
ONE_LINE = ("curve", "ranks", "packages", "hardware", "code", "reused", "data", "model")


def _lines(name: str, value: Any) -> str:
    """A section of a record's file: one line an entry, or one line in all."""
    if name in ONE_LINE or not isinstance(value, dict):
        return _compact(value)
    return "{\n" + ",\n".join(f"  {_compact(key)}: {_compact(item)}" for key, item in value.items()) + "\n }"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _rounded(value: Any) -> Any:
    """Numbers with as many digits as a reader of details needs."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def _nested(by_layer: Any) -> Any:
    """Values by dotted layer names as a tree: `{"layers.0.q": 1}` becomes `{"layers": {"0": {"q": 1}}}`."""
    if not isinstance(by_layer, dict) or not any("." in name for name in by_layer):
        return by_layer
    tree: dict[str, Any] = {}
    for name, value in by_layer.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def _flat(tree: Any, prefix: str = "") -> Any:
    """What `_nested` was given."""
    if not isinstance(tree, dict):
        return tree
    if not any(isinstance(value, dict) for value in tree.values()):
        return {prefix + name: value for name, value in tree.items()} if prefix else tree
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _without_nulls(value: Any) -> Any:
    """A setting that is null is not worth a line: reading fills it in."""
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def thin(
    curve: list[tuple[int, float, float, float]], points: int = CURVE_POINTS
) -> list[tuple[int, float, float, float]]:
    """At most `points` entries of a curve: the first third whole, then evenly to the last."""
    if len(curve) <= points:
        return curve
    head, tail = curve[: points // 3], curve[points // 3 :]
    stride = -(-len(tail) // (points - len(head)))
    return head + tail[::-stride][::-1]  # counted from the end, so that the last step is kept


def load_record(text: str | bytes) -> Record:
    """A record from its file's content.

    Raises:
        ValueError: not a record, or of another schema version.
    """
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        problems = {".".join(map(str, item["loc"])): item["msg"] for item in error.errors()}
        if "schema_version" in problems or "" in problems:
            raise ValueError(f"not a record of schema version {SCHEMA_VERSION}") from error
        name, problem = next(iter(problems.items()))
        raise ValueError(f"{name}: {problem[0].lower()}{problem[1:]}") from error
