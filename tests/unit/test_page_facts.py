"""The numbers at the top of the report page."""

from __future__ import annotations

import pytest

from eva_bench.records.store import Store
from eva_bench.reporting.archive import Archive
from eva_bench.reporting.page.content import _facts
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
