"""From a suite (conf/suite/<name>.yaml) and the command line to planned cells. Never imports torch.

A suite is a list of grids; a grid maps a setting to one value or to a list of values, and its cells are all
combinations. On the command line, `task=` and `method=` narrow the grids, any other setting replaces theirs.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig

from eva_bench.settings.compose import Choices, compose_settings, to_spec
from eva_bench.settings.schema import where_settings
from eva_bench.settings.spec import RunSpec
from eva_bench.system import paths
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.files import read_sealed, sha256_of, write_sealed
from eva_bench.system.paths import ROOT, choices, tasks_of
from eva_bench.system.progress import Bar

NARROWING = ("task", "method")
Grid = dict[str, list[str]]  # setting -> overrides `setting=value`, one per value


@dataclass(frozen=True)
class Cell:
    """One planned run."""

    spec: RunSpec

    @cached_property
    def run_id(self) -> str:
        return self.spec.run_id

    @property
    def settings(self) -> list[str]:
        """What the command line of this cell says besides task, method, scale and seed."""
        return [item for item in self.spec.origins.command_line if item.split("=")[0] not in COORDINATES]


COORDINATES = {"task", "method", "scale", "seed"} | where_settings()  # a column of their own, or only where to run


@dataclass(frozen=True)
class Plan:
    """The cells of a suite, in the order in which they run."""

    name: str
    cells: list[Cell]


def make_plan(suite: str | None, overrides: Sequence[str]) -> Plan:
    """All cells of a suite (None: of the overrides alone), every one composed and checked.

    Raises:
        UserError: no such suite, a mistake in any cell, or no cells at all.
    """
    axes = _axes(overrides)
    grids = [_axes(_as_overrides(grid)) for grid in read_suite(suite)["grids"]] if suite is not None else [{}]
    lines = [line for grid in _narrowed(grids, axes) for line in _combinations(grid)]
    name = suite or "sweep"
    if not lines:
        raise UserError(f"'{name}' plans no cells with {' '.join(overrides) or 'these settings'}: nothing would run.")
    composer = Composer(_runs_dir(overrides), suite)
    cells: dict[str, Cell] = {}
    with Bar("composing the cells") as bar:
        for number, line in enumerate(lines, start=1):
            cell = Cell(composer.compose(line))
            cells.setdefault(cell.run_id, cell)
            if composer.slow:  # nothing to watch where everything is known from an earlier time
                bar(number, len(lines))
    composer.save()
    return Plan(name, sorted(cells.values(), key=lambda cell: cell.spec.seed))  # the first seed of all methods first


def read_suite(name: str) -> dict[str, Any]:
    """conf/suite/<name>.yaml: title and grids. Raises UserError where there is none."""
    known = choices("suite")
    if not name:
        raise UserError(f"No suite was chosen: add suite=<name> (make: SUITE=<name>). Known: {', '.join(known)}.")
    if name not in known:
        raise UserError(f"Unknown suite '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    content = read_yaml(paths.CONF / "suite" / f"{name}.yaml")
    if unknown := set(content) - {"title", "grids"}:
        raise UserError(f"conf/suite/{name}.yaml: unknown key '{sorted(unknown)[0]}'; a suite has title and grids.")
    grids = content.get("grids")
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        raise UserError(f"conf/suite/{name}.yaml: grids must be a list of grids, each a mapping of settings to values.")
    return content


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError if it is none."""
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file.name} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{file.name} is not a mapping of names to values.")
    return {str(key): value for key, value in content.items()}


def _as_overrides(grid: dict[str, Any]) -> list[str]:
    """A grid of a YAML file in the words of the command line."""
    return [f"{key}={_text(value)}" for key, value in grid.items()]


def _text(value: Any) -> str:
    """A list is as many values; a list in it is one value."""
    if isinstance(value, list):
        return ",".join(f"[{_text(item)}]" if isinstance(item, list) else _text(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def _axes(overrides: Sequence[str]) -> Grid:
    """Overrides with sweeps (`a,b`, `range(0,3)`, `glob(glue/*)`) as lists of single ones; a later one wins."""
    axes: Grid = {}
    for item in overrides:
        try:
            override = OverridesParser.create().parse_override(item)
        except Exception as error:
            raise UserError(f"Cannot read '{item}': settings are given as name=value.") from error
        lines = _values(override)
        if override.get_key_element() == "task":
            lines = [f"task={name}" for line in lines for name in tasks_of(line.removeprefix("task="))]
        axes[override.get_key_element()] = lines
    return axes


def _values(override: Override) -> list[str]:
    key, line = override.get_key_element(), override.input_line
    if not override.is_sweep_override():
        return [line]
    if isinstance(override.value(), Glob):
        return [f"{key}={name}" for name in override.value().filter(choices(key))]
    if not override.is_discrete_sweep():
        raise UserError(f"'{line}' is not a list of values: write {key}=a,b,c.")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _narrowed(grids: list[Grid], axes: Grid) -> list[Grid]:
    """The grids with the command line's values; a task or method that no grid names runs on the first grid."""
    known = {line for grid in grids for key in NARROWING for line in grid.get(key, [])}
    result = []
    for position, grid in enumerate(grids):
        narrowed = dict(grid)
        for key, lines in axes.items():
            if key in NARROWING and key in grid:
                lines = [line for line in lines if line in grid[key] or (position == 0 and line not in known)]
            narrowed[key] = lines
        result.append(narrowed)
    return result


def _combinations(grid: Grid) -> list[tuple[str, ...]]:
    return list(itertools.product(*grid.values()))


def _runs_dir(overrides: Sequence[str]) -> Path:
    given = dict(item.split("=", 1) for item in overrides if item.startswith(("runs_dir=", "results_dir=")))
    return Path(given.get("runs_dir") or paths.runs_beside(given.get("results_dir") or "results"))


class Composer:
    """Specifications of cells, quickly: settings are composed once for all seeds, and remembered on disk.

    What is remembered depends on conf/ and on the code of the schema alone, and is forgotten when they change.
    """

    def __init__(self, runs_dir: Path, suite: str | None):
        self.suite = suite
        self.slow = False  # whether anything had to be composed
        self._file = runs_dir / "cache" / "composed.json"
        self._code = _digest_of_conf()
        self._specs: dict[tuple[str, ...], RunSpec] = {}
        self._choices: dict[Choices, DictConfig] = {}
        try:
            stored = read_sealed(self._file)
            self._composed = dict(stored["composed"]) if stored["code"] == self._code else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._composed = {}

    def compose(self, line: Sequence[str]) -> RunSpec:
        """The specification for the overrides of one cell. Raises UserError."""
        seeds = [item for item in line if re.fullmatch(r"seed=\d+", item)]
        rest = tuple(item for item in line if item not in seeds)
        if rest not in self._specs:
            key = json.dumps(rest)
            if key not in self._composed:
                self.slow = True
                self._composed[key] = compose_settings(rest, self._choices)
            self._specs[rest] = to_spec(self._composed[key], rest)
        spec = self._specs[rest]
        line_of_cell = [*spec.origins.command_line, *seeds]
        origins = spec.origins.model_copy(update={"command_line": line_of_cell, "suite": self.suite})
        seed = int(seeds[-1].split("=")[1]) if seeds else spec.seed
        return spec.model_copy(update={"seed": seed, "origins": origins})

    def save(self) -> None:
        """Remember for the next time; a folder that cannot be written costs time, nothing else."""
        if not self.slow:
            return
        with contextlib.suppress(OSError):
            write_sealed(self._file, {"code": self._code, "composed": self._composed})


def _digest_of_conf() -> str:
    files = [*sorted((ROOT / "eva_bench" / "settings").glob("*.py")), *sorted(paths.CONF.rglob("*.yaml"))]
    return sha256_of(json.dumps([[file.name, sha256_of(file)] for file in files]))
