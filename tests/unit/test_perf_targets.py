"""The table of all figures with a target."""

import json

import pytest

from perf import targets


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [(3.9, "<= 4", True), (4.1, "<= 4", False), (10, ">= 10", True), (1.9, ">= 3, or the note", False), (0, "0", True)],
)
def test_a_target_is_met_or_not(value, target, expected):
    assert targets.met(value, target) is expected


def test_figures_without_a_target_are_left_out(tmp_path):
    figures = {"a": {"value": 2, "unit": "s", "target": "<= 1"}, "b": {"value": 2, "unit": "s", "target": "-"}}
    (tmp_path / "core.json").write_text(json.dumps(figures | {"c": {"value": 2, "unit": "s", "target": "stated"}}))
    (row,) = targets.rows(tmp_path)
    assert (row["figure"], row["measured"], row["met"]) == ("a", "2 s", "no")


def test_worst_layers_are_held_against_peft_where_it_is_below_the_bound(tmp_path):
    measured = {"freed memory": "kept", "ours_s": 1.0, "peft_over_ours": 11.0, "captured_ours": 0.998}
    measured |= {"captured_peft": 0.997, "worst_ours": 0.981, "worst_peft": 0.98}
    lost = {"freed memory": "kept", "peft_passes": "more than 250"}  # PEFT's loop did not end
    (tmp_path / "eva_init.json").write_text(json.dumps({"against_peft_pocket": [measured, lost]}))
    assert [row["met"] for row in targets.rows(tmp_path)] == ["yes"] * 3
