"""What a sweep costs: the status of 2,000 cells, a cell's overhead in a shared process, the smoke suite, SLURM."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from eva_bench.records.record import load_record
from eva_bench.records.store import Store
from eva_bench.sweeps.plan import make_plan
from perf import page, process
from tests.slurm.cluster import Cluster, why_not

# 7 methods x 286 seeds; and one that composes many settings: 6 methods x 33 ranks x 10 seeds.
SEEDS = ["suite=gsm8k", "seed=range(0,286)"]
SETTINGS = ["suite=rank", "adapter.rank=range(1,34)", "seed=range(0,10)"]
QUICK = ["train.steps=2", "eval.limit=8"]  # for a look at this benchmark itself


def measure(quick: bool = False) -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds, states, stdout = _smoke(folder / "smoke", quick, "hydra/launcher=local")
        assert states == ["ok"] * 7, stdout
        figures["smoke suite, two processes"] = page.figure(round(seconds, 1), "s", "<= 180")
        template = Store(folder / "smoke/results").read_all()[0]
        figures["overhead of a cell in a shared process"] = _overhead(folder / "shared")
        for name, arguments in (("2,002 cells, 7 settings", SEEDS), ("1,980 cells, 198 settings", SETTINGS)):
            first, again = _status(folder / arguments[0].partition("=")[2], arguments, template)
            figures[f"status of {name}"] = page.figure(round(again, 2), "s", "<= 2")
            figures[f"the same after an edit of conf/, which composes all settings ({name})"] = page.figure(
                round(first, 2), "s", "<= 4"
            )
    figures |= _slurm(quick)
    return figures


def _places(folder: Path) -> list[str]:
    return [f"results_dir={folder / 'results'}", f"runs_dir={folder / 'runs'}"]


def _call(*command: str, environment: dict | None = None) -> tuple[float, str]:
    """Seconds and output of a command started cold."""
    finished = process.run([sys.executable, *command], environment)
    return finished.seconds, finished.output


def _smoke(folder: Path, quick: bool, *more: str, environment: dict | None = None) -> tuple[float, list[str], str]:
    """Seconds, states and output of the smoke suite."""
    arguments = ["suite=smoke", "tracking=off", *(QUICK if quick else []), *_places(folder)]
    seconds, stdout = _call("run.py", *arguments, *more, environment=environment)
    _, listed = _call("-m", "eva_bench.sweeps.status", *arguments, "--json")
    return seconds, [item["state"] for item in json.loads(listed[listed.index("[\n") :])], stdout


def _overhead(folder: Path) -> dict:
    """Seconds from the end of a cell to the end of the next, without what the record calls its work."""
    arguments = ["suite=gsm8k", "method=lora,pissa", "tracking.mode=offline", *QUICK, *_places(folder)]
    _, stdout = _call("run.py", *arguments)
    files = sorted((folder / "results/records").rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 6, stdout
    ends = [path.stat().st_mtime_ns / 1e9 for path in files]
    costs = [load_record(path.read_text()).costs for path in files]
    work = [page.work(cost) for cost in costs]
    overheads = [end - before - busy for before, end, busy in zip(ends, ends[1:], work[1:], strict=False)]
    return page.figure(round(median(overheads), 2), "s", "<= 0.5", cells=[round(value, 2) for value in overheads])


def _status(folder: Path, arguments: list[str], template) -> tuple[float, float]:
    """Seconds of `make status` with every record there: as after an edit of conf/, and when the settings are known."""
    arguments = [*arguments, *_places(folder)]
    suite, *rest = arguments
    store = Store(folder / "results")
    store.check_writable()
    for cell in make_plan(suite.split("=")[1], rest).cells:
        spec = cell.spec
        changed = {"run_id": cell.run_id, "spec": spec, "origins": spec.origins}
        store.write(template.model_copy(update=changed))
    known, edited = [], []
    for seconds in (known, edited) * 3:
        if seconds is edited:
            (folder / "runs/cache/composed.json").unlink()  # what an edit leads to
        taken, text = _call("-m", "eva_bench.sweeps.status", *arguments)
        assert " missing" not in text, text[-500:]
        seconds.append(taken)
    return median(edited), median(known)


def _slurm(quick: bool) -> dict:
    """The smoke suite as SLURM jobs of one cell each: seconds, and what a job costs beside its cell."""
    if reason := why_not():
        print(f"no figure for SLURM: {reason}")
        return {}
    with tempfile.TemporaryDirectory() as temporary, Cluster(Path(temporary)) as cluster:
        folder = Path(temporary) / "runs"
        job = [
            "hydra/launcher=slurm",
            "pack.pocket=1",
            "hydra.launcher.cpus_per_task=1",
            "hydra.launcher.mem_gb=2",
            f"hydra.launcher.array_parallelism={max(1, (os.cpu_count() or 2) // 2)}",
        ]
        seconds, states, stdout = _smoke(folder, quick, *job, environment=cluster.environment)
        assert states == ["ok"] * 7, stdout
        records = Store(folder / "results").read_all()
        work = sum(page.work(record.costs) for record in records)
        return {
            "smoke suite, SLURM, one cell a job, one job at a time": page.figure(round(seconds, 1), "s", "-"),
            "overhead of a cell as a SLURM job of its own": page.figure(round((seconds - work) / 7, 2), "s", "stated"),
        }


def main() -> None:
    """Measure, write results/bench/sweeps.{json,md}, print the table; with `quick`, short runs and no files."""
    quick = "quick" in sys.argv[1:]
    figures = measure(quick)
    if quick:
        print(json.dumps(figures, indent=1))
    else:
        page.write("sweeps", "What a sweep costs", figures)


if __name__ == "__main__":
    main()
