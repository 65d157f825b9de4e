"""Tables and report of 3,000 records: seconds and peak memory, each command started cold. `python -m perf.report`

The records are made up from real ones (curves, ranks and settings as they are, scores with noise), in a folder that goes again.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from eva_bench.records.store import Store
from eva_bench.reporting.tables.spec import read_table, read_tables
from eva_bench.system.paths import CONF
from perf import page

ROOT = Path(__file__).resolve().parent.parent
RECORDS = 3000
NOTE = """
Made-up records of 40 tasks, nine methods and up to nine seeds, with the curves and settings of real ones. Cold starts, two
CPU cores, no torch. `python -m perf.report`
"""


def synthesise(results: Path, count: int = RECORDS, source: Path = ROOT / "results") -> int:
    """Write `count` made-up records of all tasks and methods below `results`. Returns how many were written."""
    real: dict[str, list[dict]] = {}
    for record in Store(source).read_all():
        if record.status == "ok" and record.spec.stage == "final":
            real.setdefault(record.method, []).append(record.model_dump(mode="json"))
    overall = read_table(CONF / "table" / "overall.yaml")
    metrics = {task: _metrics(task) for task in overall.tasks}
    folder = results / "records"
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for seed, task, method in product(range(count), metrics, overall.methods):
        if written == count:
            break
        examples = real.get(method) or real["eva"]
        made = _made_up(json.loads(json.dumps(examples[seed % len(examples)])), task, method, seed, metrics[task])
        (folder / f"{made['run_id']}.json").write_text(json.dumps(made, indent=1) + "\n")
        written += 1
    return written


def _metrics(task: str) -> list[str]:
    """Every metric of a task that any table shows; the primary one first, references last."""
    shown = [(table, column) for table in read_tables() for column in table.columns if column.task == task and column.fact is None]
    names = dict.fromkeys(column.metric or "accuracy" for _, column in shown)
    references = {f"{table.reference}_{column.metric}" for table, column in shown if table.reference}
    return sorted(names, key=lambda name: name not in ("accuracy", "mean")) + sorted(references)


def _made_up(record: dict, task: str, method: str, seed: int, names: list[str]) -> dict:
    """A real record turned into one of another task, method and seed."""
    noise = random.Random(f"{task}/{method}/{seed}")
    family = {"gsm8k": "math"}.get(task, task.split("/")[0])
    record["spec"] |= {"task": record["spec"]["task"] | {"name": task, "family": family, "primary": names[0]}, "seed": seed}
    record["spec"]["method"] |= {"name": method}
    record["metrics_before"] = dict.fromkeys(names, 0.1)
    record["metrics"] |= {name: min(1.0, max(0.0, noise.gauss(0.7, 0.1))) for name in names}
    record["curve"] = [[step, loss * noise.uniform(0.9, 1.1), norm, lr] for step, loss, norm, lr in record["curve"]]
    record["origins"] = {"command_line": [f"task={task}", f"method={method}", f"seed={seed}"]}
    name = f"{task.replace('/', '_')}-{method}-pocket-s{seed}-{noise.getrandbits(40):010x}"
    return record | {"run_id": name, "task": task, "method": method, "seed": seed}


def measure() -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    with tempfile.TemporaryDirectory() as folder:
        count = synthesise(Path(folder) / "results")
        tables, tables_bytes = _command("eva_bench.reporting.tables", folder)
        figures, figures_bytes = _command("eva_bench.reporting.figures", folder)
        report, report_bytes = _command("eva_bench.reporting.page", folder)
        page = (Path(folder) / "results/report/index.html").stat().st_size
    return {
        f"make tables, {count:,} records": {"value": round(tables, 1), "unit": "s", "target": "<= 5"},
        "its peak memory": {"value": round(tables_bytes / 1e6), "unit": "MB", "target": "<= 500"},
        f"make figures, {count:,} records": {"value": round(figures, 1), "unit": "s", "target": "-"},
        "peak memory of make figures": {"value": round(figures_bytes / 1e6), "unit": "MB", "target": "<= 500"},
        f"make report, {count:,} records": {"value": round(report, 1), "unit": "s", "target": "<= 20"},
        "peak memory of make report": {"value": round(report_bytes / 1e6), "unit": "MB", "target": "<= 500"},
        "size of the page": {"value": round(page / 1e6, 1), "unit": "MB", "target": "-"},
    }


def _command(module: str, folder: str) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a module started cold; fails if it imported torch."""
    code = (
        f"import resource, runpy, sys; sys.argv = ['x', 'results_dir={folder}/results']\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
    return time.perf_counter() - start, int(re.findall(r"peak (\d+)", done.stdout)[-1]) * 1024


def main() -> None:
    """Write results/bench/report.{json,md}."""
    page.write("report", "Tables and report of 3,000 records", measure(), NOTE)


if __name__ == "__main__":
    main()
