"""The numbers at the top of the report page."""

from __future__ import annotations

import pytest

from eva_bench.records.store import Store
from eva_bench.reporting.archive import Archive, Run
from eva_bench.reporting.page.content import _facts
from eva_bench.reporting.page.probes import probe_tables
from tests.records import record


@pytest.mark.parametrize(
    ("scales", "tasks"),
    [
        # one training on a union of sets has a score for each of them, and tables count these
        ([{"scores": {"lora": {"boolq": [], "piqa": []}, "eva": {"boolq": [], "gsm8k": []}}}], 3),
        ([], 1),  # runs of no table
    ],
)
def test_tasks_are_counted_as_the_tables_count_them(scales, tasks, tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    store.write(record("lora", 0, task="commonsense"))
    facts = _facts(Archive.load(tmp_path), scales)
    assert facts["tasks"] == tasks and facts["records"] == facts["methods"] == 1


def test_probes_of_own_runs_are_in_tables_of_their_own(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    lost = {"metrics": {"forgetting/loss": 2.0}, "metrics_before": {"forgetting/loss": 1.0}}
    store.write(record("lora", 0, **lost))
    store.write(record("lora", 1, origins={"command_line": ["method=lora", "task=gsm8k", "train.steps=9"]}, **lost))
    tables = probe_tables(Archive.load(tmp_path).runs)
    assert [table["title"] for table in tables] == [
        "forgetting, scale pocket",
        "forgetting, scale pocket, own runs with other train.steps",
    ]
    assert [row[:3] for table in tables for row in table["rows"]] == [["lora", "math", 1]] * 2


def test_a_broken_result_of_pretrainings_is_reported_and_left_out(tmp_path, capsys):
    folder = tmp_path / "probes" / "pretrainings"
    folder.mkdir(parents=True)
    (folder / "old.json").write_text('{"subjects": ["a", "b"], "probe": "pretrainings", "summary": {}}')
    assert Archive.load(tmp_path).pretrainings == []
    assert "old.json is no result of a probe: 'layers'" in capsys.readouterr().err


def test_a_sweep_of_a_probe_stays_in_its_file():
    run = Run.of(record("lora", 0), {"intruders": {"intruders": 4.0, "k=1 epsilon=0.5": 2.0, "lambda=0 loss": 1.5}})
    (table,) = probe_tables([run])
    assert table["header"] == ["method", "family", "runs", "intruders"] and table["rows"] == [["lora", "math", 1, 4.0]]
