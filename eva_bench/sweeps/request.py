"""A sweep's command line, sorted. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from eva_bench.system.errors import UserError
from eva_bench.system.paths import is_group

LAUNCHER = "hydra/launcher"
SWEEP_SETTINGS = ("hydra", "pack", "array_size")  # sections of conf/sweep.yaml that the command line may change


@dataclass(frozen=True)
class Request:
    """A sweep's command line, sorted: which suite, what the cells are, and how they are spread."""

    suite: str | None
    cells: list[str]
    spread: list[str]
    dry_run: bool = False

    @property
    def launcher(self) -> str:
        """`here`, `local`, or the name of a Hydra launcher."""
        chosen = [item.split("=", 1)[1] for item in self.spread if item.startswith(f"{LAUNCHER}=")]
        return chosen[-1] if chosen else "here"


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for several cells (a suite, a group of tasks), or for a launcher elsewhere."""
    flags = {"-m", "--multirun"} & set(arguments)
    groups = [item for item in arguments if item.startswith("task=") and is_group(item.removeprefix("task="))]
    return bool(flags or groups) or any(item.split("=")[0] in ("suite", "dry_run", LAUNCHER) for item in arguments)


def read_request(arguments: Sequence[str]) -> Request:
    """Sort a command line. Raises UserError for options that a sweep does not know."""
    suite, dry_run = None, False
    cells: list[str] = []
    spread: list[str] = []
    for item in arguments:
        key, _, value = item.partition("=")
        if item in ("-m", "--multirun"):
            continue
        if item.startswith("-"):
            raise UserError(f"A sweep has no option '{item}'.")
        if key == "suite":
            suite = value
        elif key == "dry_run":
            dry_run = _flag(item, value)
        elif key.replace("/", ".").split(".")[0] in SWEEP_SETTINGS:
            spread.append(item)
        else:
            cells.append(item)
    return Request(suite, cells, spread, dry_run)


def _flag(item: str, value: str) -> bool:
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError as error:
        raise UserError(f"'{item}' is neither true nor false.") from error
