"""The record of a run: one JSON file, written once. Schema, upgrade of older versions. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

# Version -> what turns a record of that version into one of the next. A field that is added with a default needs no new
# version; one that goes or changes its meaning does.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class Record(BaseModel):
    """Everything known about one run. Fractions are 0-1, times in seconds, sizes in bytes.

    Never in a record: host or user names, absolute paths, tokens.
    """

    # NaN and infinity become strings that load again; as JSON's null they would make the record unreadable.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    train_id: str
    init_id: str
    status: Literal["ok", "failed", "interrupted", "skipped"]
    scale: str
    task: str
    method: str
    seed: int
    spec: dict[str, Any]
    origins: dict[str, Any] = Field(default_factory=dict)

    metrics_before: dict[str, float] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    curve: list[list[float]] = Field(default_factory=list)  # [step, loss, gradient norm, learning rate]
    epochs: list[dict[str, float]] = Field(default_factory=list)  # metrics after every epoch, where asked for
    steps: int = 0
    tokens: int = 0
    resumed: int = 0
    micro_batch_size: int | None = None  # of the forward passes: smaller than the spec's if memory ran out
    waited_s: float | None = None  # seconds of training in which the model waited for batches
    trainable_parameters: int | None = None
    adapter_bytes: int | None = None
    ranks: dict[str, int] = Field(default_factory=dict)
    initialisation: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    costs: dict[str, dict[str, float]] = Field(default_factory=dict)  # phase -> seconds, peak_bytes
    reused: dict[str, bool] = Field(default_factory=dict)  # which phases came from a cache
    code: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    finished: str | None = None  # UTC, ISO 8601
    error: str | None = None


def load_record(content: dict[str, Any]) -> Record:
    """Validate a record of any known schema version, brought up to the present one.

    Raises:
        ValueError: not a record, or of a version that this eva-bench does not know.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise ValueError("not an eva-bench record (no schema_version)")
    if version > SCHEMA_VERSION:
        raise ValueError(f"schema version {version} is newer than this eva-bench ({SCHEMA_VERSION})")
    while version < SCHEMA_VERSION:
        if version not in UPGRADES:
            raise ValueError(f"schema version {version} is older than any that this eva-bench can read")
        version, content = version + 1, UPGRADES[version](content) | {"schema_version": version + 1}
    return Record.model_validate(content)
