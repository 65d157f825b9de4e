"""Tables and report of 2,000 and 10,000 records: seconds, peak memory, size and the time until the page can be used.

`python -m perf.report`. The records are made up from real ones (curves, ranks and settings as they are, scores with
noise and a difference between methods), in a temporary folder or in those that are given.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Mapping
from itertools import islice, product
from pathlib import Path

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.reporting.tables.spec import read_table, read_tables
from eva_bench.settings.spec import Origins
from eva_bench.system.paths import CONF, RESULTS
from perf import page, process
from tests.browser import Browser

RECORDS = {2000: (2, 1.0), 10_000: (6, 2.0)}  # number -> megabytes and seconds that the page may take
RATES = [1e-3 * 2**k for k in range(7)]
OPENED = 5  # times; the least counts: other work on the machine only adds
NOTE = """
Made-up records of 40 tasks and nine methods, a third of them tried learning rates, with the curves and settings of real
ones. Cold starts, no torch; seconds that one core computes. Usable: seconds from the start of the navigation until the
first view is drawn, in headless Chromium, from disk, the best of five. `python -m perf.report`
"""


def synthesise(results: Path, count: int, source: Path = RESULTS) -> int:
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
    tried = product(range(100, 102), list(metrics), overall.methods, RATES)
    for seed, task, method, rate in islice(tried, count // 3):
        examples = real.get(method) or real["eva"]
        store.write(_tried(_made_up(examples[0], task, method, seed, metrics[task]), rate))
        written += 1
    for seed, task, method in product(range(count), metrics, overall.methods):
        if written == count:
            break
        examples = real.get(method) or real["eva"]
        store.write(_made_up(examples[seed % len(examples)], task, method, seed, metrics[task]))
        written += 1
    return written


def _tried(record: Record, rate: float) -> Record:
    """The record as one that tried a learning rate."""
    spec = record.spec.model_copy(update={"stage": "tune", "train": record.spec.train.model_copy(update={"lr": rate})})
    line = [*record.origins.command_line, "stage=tune", f"train.lr={rate}"]
    origins = Origins(command_line=line)
    names = {"run_id": f"{record.run_id}-{rate}", "train_id": f"{record.train_id}-{rate}"}
    return record.model_copy(update=names | {"spec": spec, "origins": origins})


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
    level = 0.5 + 0.3 * random.Random(method).random()
    scores = {name: min(1.0, max(0.0, noise.gauss(level, 0.03))) for name in names}
    return record.model_copy(
        update={
            "run_id": f"{task.replace('/', '_')}-{method}-pocket-s{seed}-{noise.getrandbits(40):010x}",
            "train_id": f"{noise.getrandbits(64):016x}",
            "spec": spec.model_copy(update={"task": other, "method": chosen, "seed": seed}),
            "origins": Origins(command_line=[f"task={task}", f"method={method}", f"seed={seed}"]),
            "metrics_before": dict.fromkeys(names, 0.1) | {"forgetting/loss": 1.0},
            "metrics": record.metrics | scores | {"forgetting/loss": 1 + noise.random()},
            "curve": [(step, loss * noise.uniform(0.9, 1.1), *rest) for step, loss, *rest in record.curve],
        }
    )


def measure(folders: Mapping[int, Path]) -> dict[str, dict]:
    """All figures: name -> {value, unit, target}; `folders` hold results folders by their number of records."""
    found = {}
    for count, folder in folders.items():
        megabytes, usable = RECORDS[count]
        tables, tables_bytes = _command("eva_bench.reporting.tables", folder)
        report, report_bytes = _command("eva_bench.reporting.page", folder)
        html = folder / "report" / "index.html"
        found |= {
            f"make tables, {count:,} records": page.figure(round(tables, 1), "s"),
            f"its peak memory, {count:,} records": page.figure(round(tables_bytes / 1e6), "MB", "<= 500"),
            f"make report, {count:,} records": page.figure(round(report, 1), "s", "<= 20"),
            f"peak memory of make report, {count:,} records": page.figure(round(report_bytes / 1e6), "MB", "<= 500"),
            f"size of the page, {count:,} records": page.figure(
                round(html.stat().st_size / 1e6, 1), "MB", f"<= {megabytes}"
            ),
            f"usable after, {count:,} records": page.figure(round(_usable(html), 2), "s", f"<= {usable:g}"),
        }
    return found


def _usable(html: Path) -> float:
    """Seconds from the start of the navigation until the first view is drawn, the least of several."""
    times = []
    for _ in range(OPENED):
        with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
            browser.open(html.resolve().as_uri())
            browser.wait("performance.getEntriesByName('drawn').length > 0")
            times.append(browser.run("performance.getEntriesByName('drawn')[0].startTime") / 1000)
    return min(times)


def _command(module: str, results: Path) -> tuple[float, int]:
    """Processor seconds and peak resident bytes of a module started cold; fails if it imported torch."""
    code = (
        f"import runpy, sys; sys.argv = ['x', 'results_dir={results}']\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    finished = process.run([sys.executable, "-c", code]).checked()
    return finished.cpu_seconds, finished.peak_bytes


def main() -> None:
    """Write results/bench/report.{json,md}; `make=<folder>` only makes records, `use=<folder>` uses those."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(options.get("use") or options.get("make") or temporary)
        folders = {count: base / str(count) for count in RECORDS}
        if "use" not in options:
            for count, folder in folders.items():
                synthesise(folder, count)
        if "make" not in options:
            page.write("report", "Tables and report of 2,000 and 10,000 records", measure(folders), NOTE)


if __name__ == "__main__":
    main()
