"""Every committed record: readable, where it belongs, small, and without anything about the machine it came from."""

from __future__ import annotations

import re
from statistics import median

import pytest

from eva_bench.records.record import load_record
from eva_bench.records.store import Store
from tests.conftest import ROOT

STORE = Store(ROOT / "results")
FILES = sorted(STORE.records.rglob("*.json"))
PRIVATE = re.compile(r'"/(?:home|root|tmp|work|Users)/|\\\\|wandb_v1_|hf_[A-Za-z]{20}')


@pytest.fixture(scope="module")
def records():
    return {path: load_record(path.read_bytes()) for path in FILES}


def test_every_record_is_of_the_schema_and_where_it_belongs(records):
    assert records
    for path, record in records.items():
        assert path == STORE.path(record.spec), path
        assert (record.run_id, record.train_id, record.init_id) == (
            record.spec.run_id,
            record.spec.train_id,
            record.spec.init_id,
        ), path


def test_records_were_made_by_committed_code_and_say_nothing_of_the_machine(records):
    for path, record in records.items():
        assert record.code["commit"] and not record.code["dirty"], path
        assert not PRIVATE.search(path.read_text()), path


def test_a_typical_record_has_six_kilobytes_at_most(records):
    assert median(path.stat().st_size for path in records) <= 6 * 1024


def test_what_is_written_again_is_the_same_file(records):
    for path, record in list(records.items())[::50]:
        again = load_record(record.to_json())
        assert again.to_json() == record.to_json() and again.metrics == record.metrics, path
