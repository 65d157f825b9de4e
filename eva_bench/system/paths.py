"""Where the parts of the project lie, and which choices `conf/` offers."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the checkout, or of the installed packages
WORK = ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()  # where an installed command keeps what it makes
CONF = ROOT / "conf"
DATA = WORK / "data"  # untracked mirror that `make fetch` fills
RESULTS = ROOT / "results"
MANIFESTS = ROOT / "tasks" / "manifest"
HARNESS = ROOT / "tasks" / "lm_eval"
POCKET_WEIGHTS = ROOT / "pocket" / "weights"


def runs_beside(results_dir: str) -> str:
    """Where adapters and caches of a results folder belong unless said otherwise: another folder begins anew."""
    return "runs" if Path(results_dir).absolute() == Path("results").absolute() else str(Path(results_dir) / "runs")


def choices(group: str) -> list[str]:
    """The choices of a config group, nested ones as `glue/cola`; what others inherit from (`base/`) is none."""
    folder = CONF / group
    found = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return [name for name in found if not name.startswith("base/")]


def is_group(task: str) -> bool:
    """Whether a name stands for all tasks of a folder: `glue`, but not `commonsense`, which is a task itself."""
    return bool(task) and (CONF / "task" / task).is_dir() and not (CONF / "task" / f"{task}.yaml").is_file()


def tasks_of(task: str) -> list[str]:
    """The tasks that a name stands for: itself, or those of the group."""
    return [name for name in choices("task") if name.startswith(f"{task.rstrip('/')}/")] if is_group(task) else [task]
