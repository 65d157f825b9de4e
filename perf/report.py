"""Tables and report of 3,000 records: seconds and peak memory, each command started cold.

`python -m perf.report`. The records are made up from real ones (curves, ranks and settings as they are, scores with
noise), in a temporary folder.
"""

from __future__ import annotations

import random
import sys
import tempfile
from itertools import product
from pathlib import Path

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.reporting.tables.spec import read_table, read_tables
from eva_bench.settings.spec import Origins
from eva_bench.system.paths import CONF, RESULTS
from perf import page, process

RECORDS = 3000
NOTE = """
Made-up records of 40 tasks, nine methods and up to nine seeds, with the curves and settings of real ones. Cold starts,
two CPU cores, no torch. `python -m perf.report`
"""


def synthesise(results: Path, count: int = RECORDS, source: Path = RESULTS) -> int:
    """Write made-up records of all tasks and methods.

    Args:
        results: the results folder that they go to.
        count: how many at most.
        source: the results folder with the real ones.

    Returns:
        How many were written.
    """
    real: dict[str, list[Record]] = {}
    for record in Store(source).read_all():
        if record.status == "ok" and record.spec.stage == "final":
            real.setdefault(record.method, []).append(record)
    overall = read_table(CONF / "table" / "overall.yaml")
    metrics = {task: _metrics(task) for task in overall.tasks}
    store, written = Store(results), 0
    for seed, task, method in product(range(count), metrics, overall.methods):
        if written == count:
            break
        examples = real.get(method) or real["eva"]
        store.write(_made_up(examples[seed % len(examples)], task, method, seed, metrics[task]))
        written += 1
    return written


def _metrics(task: str) -> list[str]:
    """Every metric of a task that any table shows; the primary one first, references last."""
    shown = [
        (table, column)
        for table in read_tables()
        for column in table.columns
        if column.task == task and column.fact is None
    ]
    names = dict.fromkeys(column.metric or "accuracy" for _, column in shown)
    references = {f"{table.reference}_{column.metric}" for table, column in shown if table.reference}
    return sorted(names, key=lambda name: name not in ("accuracy", "mean")) + sorted(references)


def _made_up(record: Record, task: str, method: str, seed: int, names: list[str]) -> Record:
    """A real record turned into one of another task, method and seed."""
    noise, spec = random.Random(f"{task}/{method}/{seed}"), record.spec
    family = {"gsm8k": "math"}.get(task, task.split("/")[0])
    other = spec.task.model_copy(update={"name": task, "family": family, "primary": names[0]})
    chosen = spec.method.model_copy(update={"name": method})
    scores = {name: min(1.0, max(0.0, noise.gauss(0.7, 0.1))) for name in names}
    return record.model_copy(
        update={
            "run_id": f"{task.replace('/', '_')}-{method}-pocket-s{seed}-{noise.getrandbits(40):010x}",
            "spec": spec.model_copy(update={"task": other, "method": chosen, "seed": seed}),
            "origins": Origins(command_line=[f"task={task}", f"method={method}", f"seed={seed}"]),
            "metrics_before": dict.fromkeys(names, 0.1),
            "metrics": record.metrics | scores,
            "curve": [(step, loss * noise.uniform(0.9, 1.1), *rest) for step, loss, *rest in record.curve],
        }
    )


def measure() -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    with tempfile.TemporaryDirectory() as folder:
        count = synthesise(Path(folder) / "results")
        tables, tables_bytes = _command("eva_bench.reporting.tables", folder)
        figures, figures_bytes = _command("eva_bench.reporting.figures", folder)
        report, report_bytes = _command("eva_bench.reporting.page", folder)
        size = (Path(folder) / "results/report/index.html").stat().st_size
    return {
        f"make tables, {count:,} records": page.figure(round(tables, 1), "s", "<= 5"),
        "its peak memory": page.figure(round(tables_bytes / 1e6), "MB", "<= 500"),
        f"make figures, {count:,} records": page.figure(round(figures, 1), "s"),
        "peak memory of make figures": page.figure(round(figures_bytes / 1e6), "MB", "<= 500"),
        f"make report, {count:,} records": page.figure(round(report, 1), "s", "<= 20"),
        "peak memory of make report": page.figure(round(report_bytes / 1e6), "MB", "<= 500"),
        "size of the page": page.figure(round(size / 1e6, 1), "MB"),
    }


def _command(module: str, folder: str) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a module started cold; fails if it imported torch."""
    code = (
        f"import runpy, sys; sys.argv = ['x', 'results_dir={folder}/results']\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    finished = process.run([sys.executable, "-c", code]).checked()
    return finished.seconds, finished.peak_bytes


def main() -> None:
    """Write results/bench/report.{json,md}."""
    page.write("report", "Tables and report of 3,000 records", measure(), NOTE)


if __name__ == "__main__":
    main()
