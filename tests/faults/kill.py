"""kill -9 at random moments, then the same command again: nothing lost, nothing corrupt, the same bytes.

`python -m tests.faults.kill 100` (make test-faults) writes results/bench/faults.json and .md.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from eva_bench.records.record import load_record
from tests.conftest import ROOT
from tests.forked import Command

# Two cells that differ in all phases: a start from the data, and one from a decomposition of the weights.
# A checkpoint after every step, so that most kills hit one that is just being written.
CELLS = ["suite=smoke", "method=eva,pissa", "train.steps=12", "train.checkpoint_minutes=0", "train.batch_size=4",
         "train.micro_batch_size=2", "calibration.batch_size=4", "adapter.rank=4", "eval.limit=8", "eval.chunk=2",
         "eval.batch_size=2", "eval.max_new_tokens=8", "tracking=off", "threads=1"]  # fmt: skip


@dataclass
class Outcome:
    """What a folder of results holds after a command: what must not depend on kills."""

    metrics: dict[str, dict]
    curves: dict[str, list]
    adapters: dict[str, bytes]
    samples: dict[str, bytes]


class Commands:
    """Starts the two cells, or others, each in a process of its own."""

    def __init__(self, arguments: list[str]):
        self.arguments = [*CELLS, *arguments]

    def start(self, folder: Path) -> Command:
        places = [f"results_dir={folder}/results", f"runs_dir={folder}/runs"]
        return Command([*self.arguments, *places], folder / "output.txt")

    def run(self, folder: Path) -> float:
        """Run to the end; seconds since its first line. Raises AssertionError unless the exit code is 0."""
        command = self.start(folder)
        command.wait_for("\n")
        began = time.monotonic()
        assert command.end() == 0, command.said()[-3000:]
        return time.monotonic() - began

    def kill(self, folder: Path, after_lines: int, pause_s: float) -> str:
        """Start, kill -9 a moment after some lines of output; in which phase the command was.

        Lines and not seconds, because a busy machine stretches time.
        """
        process = self.start(folder).process
        while process.is_alive() and lines(folder) < after_lines:
            time.sleep(0.002)
        time.sleep(pause_s)
        process.kill()
        process.join()
        return phase(folder)


def lines(folder: Path) -> int:
    """Lines that the command has said so far."""
    output = folder / "output.txt"
    return output.read_bytes().count(b"\n") if output.exists() else 0


def phase(folder: Path) -> str:
    """What a killed command left behind."""
    records = list((folder / "results/records").rglob("*.json"))
    if len(records) == 2:
        return "after the last record"
    if list((folder / "runs/cache/train").glob("*.checkpoint*")):
        return "in training"
    done = list((folder / "runs/cache/train").glob("*.safetensors"))
    if len(done) > len(records):
        return "in evaluation or export"
    return "between the cells" if records else "before training"


def outcome(folder: Path) -> Outcome:
    """Read what is there, strictly: raises AssertionError for anything invalid, missing or left over."""
    records = [load_record(path.read_text()) for path in sorted((folder / "results/records").rglob("*.json"))]
    assert [record.status for record in records] == ["ok", "ok"]
    assert sorted(record.method for record in records) == ["eva", "pissa"]
    assert not list((folder / "results/claims").iterdir())
    for path in (folder / "results").glob("superseded/*"):
        load_record(path.read_text())
    names = [record.run_id for record in records]
    runs = folder / "runs"
    return Outcome(
        metrics={record.run_id: record.metrics | record.metrics_before for record in records},
        curves={record.run_id: record.curve for record in records},
        adapters={name: (runs / name / "adapter/adapter_model.safetensors").read_bytes() for name in names},
        samples={name: (runs / name / "samples.jsonl").read_bytes() for name in names},
    )


def kill_often(times: int, folder: Path, commands: Commands, seed: int) -> dict:
    """Undisturbed once; then `times` kills, each followed by the same command and the comparison of everything.

    Each kill has an equal share of the output for its moment, so that few of them meet every phase.
    """
    seconds = commands.run(folder / "undisturbed")
    wanted = outcome(folder / "undisturbed")
    said = lines(folder / "undisturbed")
    moments, phases, resumed = random.Random(seed), Counter(), 0
    for number in range(times):
        place = folder / f"kill-{number}"
        line = int(said * (number + moments.random()) / times)
        phases[commands.kill(place, line, moments.uniform(0, 2 * seconds / said))] += 1
        commands.run(place)
        assert outcome(place) == wanted, f"kill {number} changed the result: {place}"
        resumed += "training continues after step" in (place / "output.txt").read_text()
    return {
        "kills": times,
        "lost or corrupt records": 0,
        "continued from a checkpoint": resumed,
        "phases": dict(phases),
    }


def main() -> None:
    """Kill as often as the command line says and write the figure."""
    from pocket.datasets import gsm8k
    from tests.checkpoints import write_checkpoint
    from tests.e2e.conftest import ROWS, write_gsm8k

    times = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_gsm8k(folder / "hub", gsm8k.generate("train", ROWS), gsm8k.generate("test", ROWS))
        model = write_checkpoint("smollm2_135m", folder / "checkpoint")
        commands = Commands([f"model.path={model}", f"data.root={folder / 'hub'}"])
        figure = kill_often(times, folder, commands, seed=times)
    place = ROOT / "results" / "bench"
    place.mkdir(parents=True, exist_ok=True)
    (place / "faults.json").write_text(json.dumps(figure, indent=1) + "\n")
    lines = [
        "# kill -9 at random moments",
        "",
        f"{times} runs of two cells (`make test-faults`) were killed at a random moment "
        "and the same command was given again. "
        f"Lost or corrupt records: {figure['lost or corrupt records']}. Every cell was there once, "
        "and metrics, loss curves, samples "
        f"and adapters were equal to the undisturbed run's, byte for byte; "
        f"{figure['continued from a checkpoint']} runs continued from a checkpoint.",
        "",
        "| killed | times |",
        "| --- | --- |",
        *(f"| {name} | {n} |" for name, n in sorted(figure["phases"].items())),
    ]
    (place / "faults.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
