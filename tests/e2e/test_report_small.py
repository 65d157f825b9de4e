"""The report of little: one run, one method, no records at all, no place to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva_bench.records.store import Store
from eva_bench.reporting.page import main
from tests.records import record
from tests.report_page import VIEWS, go, texts


@pytest.fixture
def one_method(tmp_path) -> Path:
    """The page of a single run."""
    store = Store(tmp_path)
    store.check_writable()
    store.write(record("eva", 0, 0.5, curve=[], costs={}, ranks={}))
    assert main([f"results_dir={tmp_path}"]) == 0
    return tmp_path / "report/index.html"


def test_a_single_run_gives_a_page_that_names_the_other_scales(one_method):
    assert "Nothing has been run at scale lite, paper, small." in one_method.read_text(encoding="utf-8")


def test_one_method_only(one_method, opened):
    browser = opened(one_method)
    for view in VIEWS:
        go(browser, f"view={view}&one=1")
    assert browser.complaints == []


@pytest.fixture
def no_records(tmp_path) -> Path:
    """The page of an empty results folder."""
    assert main([f"results_dir={tmp_path}"]) == 0
    return tmp_path / "report/index.html"


def test_own_runs_alone_are_on_the_first_screen(tmp_path, opened):
    line = {"command_line": ["method=eva", "task=gsm8k", "train.lr=1"]}
    Store(tmp_path).write(record("eva", 0, 0.8, spec={"train": {"lr": 1.0}}, origins=line))
    assert main([f"results_dir={tmp_path}"]) == 0
    browser = opened(tmp_path / "report/index.html")
    (shown,) = texts(browser, "#view")
    assert "Own runs, scale=pocket" in shown and "train.lr=1" in shown and "No table has records" not in shown
    assert browser.complaints == []


def test_no_records_at_all_give_a_page_that_says_so(no_records):
    text = no_records.read_text(encoding="utf-8")
    assert "No table has records yet" in text and "Nothing has been run at scale lite, paper, pocket" in text


def test_the_page_without_records_opens(no_records, opened):
    browser = opened(no_records)
    assert "No table has records yet" in texts(browser, "#view")[0]
    for view in VIEWS:
        go(browser, f"view={view}&none=1")
    assert browser.complaints == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "report").write_text("a file, not a folder")
    assert main([f"results_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("error: the report cannot be written")
