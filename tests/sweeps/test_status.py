"""`make status`: every state is told apart, and the exit code is 0 only when all is well."""

from __future__ import annotations

import json

import pytest

from eva_bench.records.store import Store
from eva_bench.settings import compose as compose_module
from eva_bench.sweeps import status
from eva_bench.sweeps.plan import make_plan


@pytest.fixture
def suite(command, small_run, places, tmp_path):
    """Arguments of a suite with one finished cell, and a function for its states (exit code, state, reason)."""
    arguments = ["suite=smoke", "method=lora", "train.lr=1e-3", *small_run, *places]
    assert command(*arguments)[0] == 0

    def states() -> tuple[int, str, str]:
        examined = status.examine(make_plan("smoke", arguments[1:]))
        return status.main(arguments), examined[0].state, examined[0].reason

    return arguments, states, Store(tmp_path / "results")


def change(store: Store, **values) -> None:
    (path,) = store.records.rglob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_ok_and_json(suite, capfd):
    arguments, states, _ = suite
    assert states() == (0, "ok", "")
    capfd.readouterr()
    assert status.main([*arguments, "--json"]) == 0
    (cell,) = json.loads(capfd.readouterr().out)
    assert (cell["state"], cell["method"], cell["task"], cell["seed"]) == ("ok", "lora", "gsm8k", 0)


@pytest.mark.parametrize(
    ("values", "state", "reason"),
    [
        ({"status": "failed", "error": "the training loss is nan at step 3"}, "failed", "nan at step 3"),
        ({"status": "interrupted", "error": "interrupted after step 1 of 2"}, "interrupted", "after step 1"),
        (
            {"metrics": {"exact_match_strict": 0.1}, "metrics_before": {"exact_match_strict": 0.2}},
            "suspicious",
            "0.100 is below the untrained model's 0.200",
        ),
        (
            {"metrics": {"exact_match_strict": 0.1, "reference_loss": 9.0}, "metrics_before": {"reference_loss": 8.0}},
            "suspicious",
            "rose from 8.000 to 9.000",
        ),
        ({"metrics": {}}, "suspicious", "no exact_match_strict"),
    ],
)
def test_what_is_not_ok_has_a_reason(suite, values, state, reason):
    _, states, store = suite
    change(store, **values)
    code, found, text = states()
    assert (code, found) == (1, state) and reason in text


def test_below_chance_is_suspicious(suite):
    _, states, store = suite
    (record,) = store.read_all()
    change(
        store,
        spec=record.spec.what() | {"task": record.spec.what()["task"] | {"chance": 0.25}},
        metrics={"exact_match_strict": 0.2},
    )
    assert states()[:2] == (1, "suspicious") and "below chance" in states()[2]


def test_missing_unreadable_and_stale(suite, monkeypatch):
    _, states, store = suite
    (path,) = store.records.rglob("*.json")
    content = path.read_bytes()
    path.unlink()
    assert states() == (1, "missing", "")
    path.write_bytes(content[:100])
    assert states() == (1, "missing", "its record cannot be read")
    path.write_bytes(content)
    monkeypatch.setattr(compose_module, "PROTOCOL", 99)  # the code's numbers changed
    code, state, reason = states()
    assert (code, state) == (1, "stale") and path.stem in reason


def test_a_private_experiment_does_not_make_a_cell_stale(suite, command):
    arguments, _, _ = suite
    assert status.main([*arguments, "train.lr=1e-2"]) == 1
    (state,) = status.examine(make_plan("smoke", [*arguments[1:], "train.lr=1e-2"]))
    assert state.state == "missing"


def test_running_means_a_live_claim(suite):
    _, states, store = suite
    (record,) = store.read_all()
    with store.claim(record.run_id, wait=False):
        assert states()[:2] == (1, "running")
    assert states()[:2] == (0, "ok")


def test_mistakes_are_one_sentence(capsys):
    assert status.main(["suite=smok"]) == 2
    assert capsys.readouterr().err.startswith("error: Unknown suite 'smok'. Did you mean 'smoke'")


def test_a_dry_run_says_what_the_caches_save(suite, command, tmp_path):
    arguments, _, store = suite
    (path,) = store.records.rglob("*.json")
    path.unlink()
    assert "missing  evaluation" in command(*arguments, "dry_run=true")[1]
    (trained,) = (tmp_path / "runs/cache/train").glob("*.safetensors")
    trained.rename(trained.with_suffix(".checkpoint"))
    assert "rest of the training" in command(*arguments, "dry_run=true")[1]
    trained.with_suffix(".checkpoint").unlink()
    assert "missing  training, evaluation" in command(*arguments, "dry_run=true")[1]


def test_a_record_without_the_metric_is_left_out_of_the_means(suite, capfd):
    arguments, _, store = suite
    change(store, metrics={})
    status.show_means(status.examine(make_plan("smoke", arguments[1:])))
    assert "mean" not in capfd.readouterr().out
