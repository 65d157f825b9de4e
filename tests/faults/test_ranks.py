"""Two processes of one job agree on running a cell or leaving it: nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from eva_bench.records.store import Store
from eva_bench.settings.compose import compose_spec
from eva_bench.sweeps import execute
from tests.conftest import ROOT
from tests.forked import in_two_ranks

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "run.py"]


@pytest.fixture
def cell(small_run, places) -> list[str]:
    return ["method=lora", "task=gsm8k", *small_run, *places]


def store_of(cell: list[str]) -> Store:
    return Store(compose_spec(cell).where.results_dir)


def test_both_leave_a_cell_that_another_process_runs(cell, tmp_path):
    store = store_of(cell)
    with store.claim(compose_spec(cell).run_id, wait=False):
        code, output = in_two_ranks([*cell, "wait=false"], tmp_path)
    assert code == 0 and output.count("left to it (wait=false)") == 1, output
    assert not list(store.read_all())


def look_when_all_is_done() -> None:
    if os.environ["RANK"] == "1":
        execute.left_to_do = lambda states: []


def test_a_sweep_whose_records_appear_while_the_others_look_ends(cell, tmp_path):
    code, output = in_two_ranks(["-m", *cell, "seed=0,1"], tmp_path, look_when_all_is_done)
    assert code == 0 and output.count("2 of 2 cells were computed now") == 1, output
    assert sorted(record.seed for record in store_of(cell).read_all()) == [0, 1]


def test_both_run_a_cell_and_both_leave_it_once_it_is_done(cell, tmp_path):
    """The first time under torchrun itself."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *TORCHRUN, *cell]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0 and done.stdout.count("OK  ") == 1, done.stdout + done.stderr
    (record,) = store_of(cell).read_all()
    assert record.status == "ok" and record.steps == 2
    code, output = in_two_ranks(cell, tmp_path)
    assert code == 0 and output.count("already done") == 1 and "before training" not in output, output
