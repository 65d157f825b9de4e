"""Two processes of one job (torchrun) agree on running a cell or leaving it: nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from eva_bench.records.store import Store
from eva_bench.settings.compose import compose_spec
from tests.conftest import ROOT

LORA = ["method=lora", "task=gsm8k"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture
def torchrun(small_run, places):
    """`torchrun --nproc_per_node 2 run.py` with a small run: exit code and output."""

    def call(*arguments: str, script: str = "run.py") -> tuple[int, str]:
        command = [sys.executable, *TORCHRUN, script, *LORA, *small_run, *places, *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)
        return done.returncode, done.stdout + done.stderr

    return call


def test_both_leave_a_cell_that_another_process_runs(torchrun, small_run, places, tmp_path):
    store = Store(tmp_path / "results")
    with store.claim(compose_spec([*LORA, *small_run, *places]).run_id, wait=False):
        code, output = torchrun("wait=false")
    assert code == 0 and output.count("left to it (wait=false)") == 1, output
    assert not list(store.read_all())


def test_a_sweep_whose_records_appear_while_the_others_look_ends(torchrun, small_run, places, tmp_path):
    script = tmp_path / "later.py"
    script.write_text(
        "import os, sys\n"
        "from eva_bench import cli\n"
        "from eva_bench.sweeps import execute\n"
        "if os.environ['RANK'] == '1': execute.left_to_do = lambda states: []  # it looked when all was done\n"
        "sys.exit(cli.main())\n"
    )
    code, output = torchrun("-m", "seed=0,1", script=str(script))
    assert code == 0 and output.count("2 of 2 cells were computed now") == 1, output
    assert sorted(record.seed for record in Store(tmp_path / "results").read_all()) == [0, 1]


def test_both_run_a_cell_and_both_leave_it_once_it_is_done(torchrun, tmp_path):
    code, output = torchrun()
    assert code == 0 and output.count("OK  ") == 1, output
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "ok" and record.steps == 2
    code, output = torchrun()
    assert code == 0 and output.count("already done") == 1 and "before training" not in output, output
