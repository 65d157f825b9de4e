"""Eight processes that start the same cell at once train it once."""

from __future__ import annotations

import pytest

from eva_bench.records.store import Store
from tests.faults.kill import Commands

CELL = ["method=lora", "task=gsm8k"]


@pytest.mark.parametrize("wait", ["true", "false"])
def test_eight_processes_train_one_cell_once(wait, checkpoint, mirror, tmp_path):
    commands = Commands([f"model.path={checkpoint('smollm2_135m')}", f"data.root={mirror}"])
    commands.arguments = [*CELL, *commands.arguments[2:], f"wait={wait}"]  # one cell instead of the suite
    processes = [commands.start(tmp_path) for _ in range(8)]
    codes = [process.end() for process in processes]
    output = (tmp_path / "output.txt").read_text()
    assert codes == [0] * 8, output
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "ok" and output.count("training: 12/12") == 1
    assert output.count("already done") + output.count("left to it") == 7
    assert not list((tmp_path / "results/claims").iterdir())
