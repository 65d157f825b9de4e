"""One's own runs: in a table of their own with what sets them apart, never in the benchmark's cells, never lost."""

from __future__ import annotations

import pytest

from eva_bench.records.store import Store
from eva_bench.reporting import figures, page
from eva_bench.reporting.tables import main
from tests.records import record


def own(seed: int, score: float, spec: dict | None = None, **changes):
    line = ["method=eva", "task=gsm8k", *changes.pop("line", []), f"seed={seed}"]
    return record(
        "eva", seed, score, spec=spec, run_id=f"own-{seed}-{score}", origins={"command_line": line}, **changes
    )


def cells(results) -> list[str]:
    """The lines of the benchmark's table, without its notes."""
    text = (results / "tables/gsm8k-pocket-pocket_language.md").read_text()
    return [line for line in text.splitlines() if line.startswith("|")]


CASES = {
    "train.lr": {"line": ["train.lr=1"], "spec": {"train": {"lr": 1.0}}},
    "data.root": {"line": ["data.root=<path>"], "spec": {"data": {"source": "hub"}}},
    "model.path": {
        "line": ["model.path=<path>"],
        "spec": {"identity": {"model": {"checkpoint": "mine", "sha256": "9"}}},
    },
}


@pytest.mark.parametrize("reason", CASES)
def test_own_runs_have_a_table_and_leave_the_benchmarks_cells_alone(reason, tmp_path, capsys):
    store = Store(tmp_path)
    for item in (record("lora", 0, 0.4), record("eva", 0, 0.5)):
        store.write(item)
    assert main([f"results_dir={tmp_path}"]) == 0
    alone = cells(tmp_path)
    for seed, score in ((0, 0.8), (1, 0.9)):
        store.write(own(seed, score, **CASES[reason]))
    assert main([f"results_dir={tmp_path}"]) == 0
    assert cells(tmp_path) == alone
    table = (tmp_path / "tables/own-pocket.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| eva ")]
    assert "85.0 ± 7.1" in line and "| 2 |" in line and reason in line
    assert f"2 finished runs are shown apart, as own runs, because of {reason} (2)" in capsys.readouterr().out


def test_only_own_runs_make_a_table_too(tmp_path, capsys):
    Store(tmp_path).write(own(0, 0.8, **CASES["data.root"]))
    assert main([f"results_dir={tmp_path}"]) == 0
    assert "own-pocket.md" in capsys.readouterr().out
    assert figures.main([f"results_dir={tmp_path}"]) == 0
    assert "no finished runs of the benchmark, and 1 of your own, which tables and" in capsys.readouterr().out
    assert page.main([f"results_dir={tmp_path}"]) == 0
    first_screen = (tmp_path / "report/index.html").read_text()
    assert "There are: Own runs, scale=pocket." in first_screen and "<p>No table has records yet." not in first_screen


def test_runs_of_a_suite_are_not_own_runs(tmp_path, capsys):
    line = ["method=eva", "task=gsm8k", "method.score=raw", "seed=0"]
    Store(tmp_path).write(record("eva", 0, 0.5, origins={"command_line": line, "suite": "ablation"}))
    assert main([f"results_dir={tmp_path}"]) == 0
    assert "own" not in capsys.readouterr().out
