"""Several processes of this machine over one list of cells. Never imports torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eva_bench.settings.spec import RunSpec
from eva_bench.sweeps.worker import write_cells
from eva_bench.system.paths import ROOT
from eva_bench.system.progress import say


def run_locally(folder: Path, specs: list[RunSpec], processes: int) -> int:
    """Several processes over one list of cells: each takes the next one that nobody has claimed."""
    processes = min(processes, len(specs))
    threads = specs[0].where.threads or os.cpu_count() or 1
    threads = max(1, threads // processes)
    file = folder / f"cells-local-{os.getpid()}.jsonl"
    write_cells(file, [_elsewhere(spec, threads) for spec in specs])
    command = [sys.executable, "-m", "eva_bench.sweeps.worker", str(file)]
    children = []
    for number in range(processes):
        log = (folder / f"process-{number}.log").open("a")  # another sweep may be writing there
        say(f"process {number}: {threads} threads, output in {log.name}")
        # A session of its own: a Ctrl-C reaches it once, through us, and it ends with a checkpoint and a record.
        child = subprocess.Popen(
            command, stdout=log, stderr=log, env=worker_environment(number), start_new_session=True
        )
        children.append(child)
    with _forwarding(children):
        codes = [child.wait() for child in children]
    file.unlink(missing_ok=True)
    return max(abs(code) for code in codes)


def _elsewhere(spec: RunSpec, threads: int) -> RunSpec:
    """The same run in a process beside others, which takes only what nobody else has claimed."""
    return spec.model_copy(update={"where": spec.where.model_copy(update={"threads": threads, "wait": False})})


def worker_environment(number: int = 0) -> dict[str, str]:
    """The package can be imported from anywhere; where several GPUs are visible, each process gets its own."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    if len(devices := visible_devices()) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return environment


def visible_devices(folder: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all there are. No torch here."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in named.split(",") if device]
    nodes = [path for path in folder.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return [str(number) for number in range(len(nodes))]


@contextmanager
def _forwarding(children: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Signals to us go to all children, which end in their own time."""

    def forward(number, frame) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
