"""Suites on a real SLURM cluster: arrays, requeued, cancelled and timed-out jobs. Records and bytes must not care.

The long jobs are queued together by a fixture, so that the tests share the waiting.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from eva_bench.records.record import Record, load_record
from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm

JOB = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"]
LR = "train.lr=1e-3"  # whatever was tuned: with more, three steps of a random model look suspicious
CELL = ["suite=smoke", "method=lora", LR]
LONG = [*CELL, "train.steps=300"]


@dataclass
class Sweep:
    """A sweep on the cluster, in folders of its own."""

    cluster: Cluster
    folder: Path
    arguments: list[str]

    def __post_init__(self):
        self.arguments = [*self.arguments, f"results_dir={self.folder / 'results'}", f"runs_dir={self.folder / 'runs'}"]

    def call(self, *command: str) -> tuple[int, str]:
        """A command of the user on the login node: exit code and output."""
        done = subprocess.run(
            [sys.executable, *command, *self.arguments], cwd=ROOT, env=self.cluster.environment, text=True,
            capture_output=True, timeout=150,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def submit(self, *launcher: str) -> str:
        """`make submit`; the id of the job."""
        code, out = self.call("-m", "eva_bench.sweeps.slurm", *JOB, *launcher)
        assert code == 0, out
        return re.search(r"cells: (\S+) to", out)[1]

    def record(self) -> Record | None:
        return next(iter(Store(self.folder / "results").read_all()), None)

    def output(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.rglob("*log.out")))

    def wait_for(self, text: str) -> None:
        self._wait(lambda: text in self.output(), f"'{text}' in the output of the job")

    def wait_for_record(self, status: str, resumed: int) -> Record:
        def there() -> bool:
            record = self.record()
            return record is not None and record.status == status and record.resumed >= resumed

        self._wait(there, f"a record that is {status} and was resumed {resumed} times or more")
        return self.record()

    def wait_for_no_claims(self) -> None:
        """The record found may be that of an earlier round: the cancelled job ends a moment later."""
        self._wait(lambda: not list((self.folder / "results/claims").iterdir()), "an end of all claims")

    def _wait(self, condition, what: str) -> None:
        wait_until(
            condition, 120, what, lambda: f"{self.cluster.jobs()}\n{self.output()[-3000:]}\n{self.cluster.logs()}"
        )

    def adapter(self) -> bytes:
        (path,) = self.folder.glob("runs/*/adapter/adapter_model.safetensors")
        return path.read_bytes()

    def states(self) -> tuple[int, list[str]]:
        """Exit code and states of `make status`."""
        code, out = self.call("-m", "eva_bench.sweeps.status", "--json")
        return code, [item["state"] for item in json.loads(out[out.index("[\n") :])]


@pytest.fixture(scope="module")
def usual(small_run) -> list[str]:
    return [item for item in small_run if "steps" not in item]


@pytest.fixture(scope="module")
def sweeps(cluster, usual, tmp_path_factory) -> dict[str, Sweep]:
    """Sweeps with one long cell each, queued together: they share the waiting."""
    made = {}
    for name, cell in (("limit", [*CELL, "train.steps=1000000"]), ("stopped", LONG)):
        made[name] = Sweep(cluster, tmp_path_factory.mktemp(name), [*cell, *usual])
    # The shortest limit that SLURM knows is a minute; the job is told 35 s before.
    made["limit"].job = made["limit"].submit("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=35")
    made["stopped"].job = made["stopped"].submit("hydra.launcher.timeout_min=10")
    made["stopped"].wait_for("\ntraining: ")  # and not "before training: "
    cluster.call("scontrol", "requeue", made["stopped"].job)
    return made


@pytest.fixture(scope="module")
def undisturbed(usual, tmp_path_factory) -> Callable[[], bytes]:
    """The adapter of the long cell, made on this machine without a scheduler, when it is first asked for."""

    @cache
    def adapter() -> bytes:
        folder = tmp_path_factory.mktemp("undisturbed")
        cell = ["method=lora", "task=gsm8k", *LONG[2:], *usual, f"results_dir={folder}", f"runs_dir={folder}"]
        spec = compose_spec(cell)
        assert run_cell(spec) == 0
        return (folder / spec.run_id / "adapter/adapter_model.safetensors").read_bytes()

    return adapter


def test_a_job_that_was_requeued_and_cancelled_continues_and_ends_with_the_same_bytes(sweeps, undisturbed, cluster):
    sweep = sweeps["stopped"]
    sweep.wait_for("training continues after step ")
    cluster.call("scancel", sweep.job)
    cancelled = sweep.wait_for_record("interrupted", resumed=1)
    (requeued,) = map(load_record, map(Path.read_text, sweep.folder.glob("results/superseded/*")))
    assert requeued.status == "interrupted" and 0 < requeued.steps <= cancelled.steps < 300
    assert f"training continues after step {requeued.steps}," in sweep.output()
    wait_until(lambda: cluster.jobs()[sweep.job] == "CANCELLED", 60, "the job is cancelled", cluster.logs)
    assert sweep.states() == (1, ["interrupted"])
    again = sweep.submit()
    assert again != sweep.job
    assert sweep.wait_for_record("ok", resumed=2).steps == 300 and sweep.adapter() == undisturbed()
    assert sweep.states() == (0, ["ok"])
    code, out = sweep.call("-m", "eva_bench.sweeps.slurm")
    assert code == 0 and "0 to submit" in out


def test_a_suite_through_hydras_launcher_is_an_array_of_jobs(cluster, usual, tmp_path):
    sweep = Sweep(cluster, tmp_path, ["suite=smoke", "method=lora,eva,pissa", LR, "train.steps=3", *usual])
    before = set(cluster.jobs())
    code, out = sweep.call("run.py", "hydra/launcher=slurm", "pack.pocket=2", *JOB, "hydra.launcher.timeout_min=10")
    assert code == 0 and "2 jobs of up to 2 cells" in out and "3 cells: 3 ok" in out, out
    assert out.count("] ok: gsm8k-") == 3  # told one by one while it waited
    new = set(cluster.jobs()) - before
    assert len(new) == 2 and len({name.split("_")[0] for name in new}) == 1  # one array
    assert sweep.states() == (0, ["ok"] * 3)
    assert not list(ROOT.glob("multirun*")) and not list(ROOT.glob("*.yaml"))


def test_a_cell_that_cannot_run_is_named_and_the_others_run(cluster, usual, tmp_path):
    ranks = [item for item in usual if "rank" not in item]
    sweep = Sweep(
        cluster, tmp_path, ["-m", "task=gsm8k", "method=lora", "adapter.rank=33,2", LR, "train.steps=3", *ranks]
    )
    code, out = sweep.call("run.py", "hydra/launcher=slurm", "pack.pocket=2", *JOB, "hydra.launcher.timeout_min=10")
    assert code != 0 and "1 ok, 1 failed" in out and "rank 33 is larger than layer" in out, out


def test_one_run_on_several_nodes_as_the_page_says(cluster, usual, tmp_path):
    """The command of docs/sweeps.md for several nodes, with one node of two processes and without GPUs."""
    (command,) = re.findall(
        r"^sbatch --nodes 2 .+? --wrap \\\n +'(.+?)'$", (ROOT / "docs/sweeps.md").read_text(), re.M | re.S
    )
    small = ["method=eva", "task=gsm8k", *usual, "train.steps=2", "train.micro_batch_size=1"]
    small += [f"results_dir={tmp_path / 'results'}", f"runs_dir={tmp_path / 'runs'}"]
    for old, new in (
        ("torchrun", f"{sys.executable} -m torch.distributed.run"),
        ("--nnodes 2 --nproc_per_node 4", "--nnodes 1 --nproc_per_node 2"),
        ("method=eva task=math scale=paper", shlex.join(small)),
    ):
        assert command.count(old) == 1
        command = command.replace(old, new)
    here = ["--nodes", "1", "--ntasks-per-node", "1", "--cpus-per-task", "2", "--chdir", str(ROOT)]
    job = cluster.call("sbatch", "--parsable", *here, "--output", str(tmp_path / "out"), "--wrap", command).strip()
    wait_until(lambda: cluster.jobs()[job] in ("COMPLETED", "FAILED"), 150, "the job ends", cluster.logs)
    output = (tmp_path / "out").read_text()
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "ok" and record.steps == 2 and (tmp_path / "runs" / "rank1").is_dir(), output


def test_a_job_at_its_time_limit_goes_back_into_the_queue_and_continues(sweeps, cluster):
    sweep = sweeps["limit"]
    sweep.wait_for("training continues after step ")
    cluster.call("scancel", sweep.job)  # seen enough: it would go on like this
    record = sweep.wait_for_record("interrupted", resumed=1)
    continued = [int(step) for step in re.findall(r"training continues after step (\d+),", sweep.output())]
    assert continued == sorted(continued) and continued[0] > 0 and continued[-1] <= record.steps
    sweep.wait_for_no_claims()
