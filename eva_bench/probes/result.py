"""What a probe found, as one small JSON file beside the records: `<results>/probes/<probe>/<subject>.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from eva_bench.system.files import sha256_of, write_atomically
from eva_bench.system.frozen import Frozen
from eva_bench.system.progress import say

DIGITS = 6
LONGEST_NAME = 160  # characters; file systems end at 255

Summary = dict[str, float | int | None]


class Findings(Frozen):
    """What a probe measured.

    Attributes:
        summary: over all layers.
        layers: by layer, or by point of a path.
    """

    summary: Summary
    layers: dict[str, dict[str, float | int | list[float]]] = Field(default_factory=dict)


class ProbeResult(Findings):
    """The file: what was measured, on what, and with which settings.

    Never in it: paths, host or user names.
    """

    schema_version: Literal[1] = 1
    probe: str
    subjects: list[str]  # run ids, or names of folders
    sha256: list[str]  # of what each training left
    scale: str | None = None  # of runs
    task: str | None = None
    method: str | None = None
    seed: int | None = None
    settings: dict[str, Any]
    seconds: float

    def to_json(self) -> str:
        """One line an entry."""
        content = {name: _rounded(value) for name, value in self.model_dump(exclude_none=True).items()}
        layers = content.pop("layers")
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in layers.items())
        return "{\n" + ",\n".join([*lines, f' "layers": {{\n{rows}\n }}']) + "\n}\n"

    def write(self, results_dir: str) -> Path:
        """Write the file; a probe that is repeated replaces it."""
        path = result_path(results_dir, self.probe, self.subjects)
        write_atomically(path, self.to_json())
        return path


def show(path: Path, result: ProbeResult) -> None:
    """Say what was measured and where it was written."""
    say(f"{result.probe} of {' and '.join(result.subjects)}, {result.seconds:.1f} s: {path}")
    for name, value in result.summary.items():
        say(f"  {name:<32} {value if value is None or isinstance(value, int) else f'{value:.4g}'}")


def result_path(results_dir: str, probe: str, subjects: Sequence[str]) -> Path:
    """The file of a result; many subjects are named by the first, how many they are and their checksum."""
    name = "--".join(subjects)
    if len(name) > LONGEST_NAME:
        name = f"{subjects[0]}--{len(subjects) - 1}-more-{sha256_of(name)[:8]}"
    return Path(results_dir) / "probes" / probe / f"{name}.json"


def mean_of(layers: Mapping[str, Mapping[str, Any]], *names: str) -> Summary:
    """Means over the layers, with `mean_` before their names."""
    return {f"mean_{name}": sum(row[name] for row in layers.values()) / len(layers) for name in names}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
