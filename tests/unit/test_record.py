"""Records of other schema versions: upgraded, or refused with one sentence."""

from __future__ import annotations

import pytest

from eva_bench.records import record as module
from eva_bench.records.record import load_record
from eva_bench.reporting.archive import Archive
from eva_bench.reporting.tables.build import build_table
from eva_bench.reporting.tables.spec import read_table
from tests.conftest import CONF
from tests.records import record

ADDED_LATER = ("epochs", "micro_batch_size", "waited_s")


def test_a_record_from_before_a_field_was_added_loads_and_makes_the_same_table():
    new = record("lora", 0, 0.5)
    content = {key: value for key, value in new.model_dump(mode="json").items() if key not in ADDED_LATER}
    old = load_record(content)
    assert old == new
    spec = read_table(CONF / "table/gsm8k.yaml")
    assert build_table(spec, Archive([old]), "pocket", "pocket_language") == build_table(spec, Archive([new]), "pocket", "pocket_language")


def test_an_older_version_is_upgraded_step_by_step(monkeypatch):
    def named(content: dict) -> dict:
        return {key: value for key, value in content.items() if key != "score"} | {"metrics": {"exact_match_strict": content["score"]}}

    monkeypatch.setattr(module, "UPGRADES", {-1: lambda content: content | {"score": content["score"] / 100}, 0: named})
    content = record("lora", 0, 0.5).model_dump(mode="json", exclude={"metrics"})
    upgraded = load_record(content | {"schema_version": -1, "score": 75.0})
    assert upgraded.metrics == {"exact_match_strict": 0.75} and upgraded.schema_version == 1


@pytest.mark.parametrize(
    ("version", "said"), [(0, "schema version 0 is older than any"), (2, "schema version 2 is newer"), ("1", "no schema_version"), (None, "no schema_version")]
)
def test_a_version_nobody_knows_is_refused_with_one_sentence(version, said):
    content = record("lora", 0, 0.5).model_dump(mode="json") | {"schema_version": version}
    with pytest.raises(ValueError, match=said) as refused:
        load_record(content)
    assert "\n" not in str(refused.value)
