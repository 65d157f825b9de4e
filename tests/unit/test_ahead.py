"""What is said before a run is long: by earlier records where there are some, else by one measured batch."""

from __future__ import annotations

from typing import Any

import pytest

from eva_bench.records.store import Store
from eva_bench.run import ahead
from tests.records import make_spec, record

COSTS = {"load": 1.0, "eval_before": 7.0, "train": 20.0, "eval": 8.0}


def costs(times: float = 1.0, peak_bytes: int = 1) -> dict[str, Any]:
    return {name: {"seconds": times * seconds, "peak_bytes": peak_bytes} for name, seconds in COSTS.items()}


@pytest.fixture
def store(tmp_path) -> Store:
    found = Store(tmp_path)
    found.check_writable()
    return found


def test_earlier_records_of_the_same_training_say_how_long(store):
    store.write(record(seed=1, costs=costs()))
    store.write(record(seed=2, costs=costs(3.0, peak_bytes=2_000_000_000), reused={"eval_before": True}))
    store.write(record(seed=3, costs=costs(100.0), spec={"train": {"steps": 99}}))
    store.write(record(seed=4, costs=costs(100.0), status="failed", error="x"))
    said = ahead.outlook(make_spec(), store, None, None, [{}] * 8, 400)
    # means: load 2, train 40, eval 16; eval_before of the first alone, because the second found it in a cache
    assert said == (
        "ahead: 400 answers before and after, 10 steps of 4 examples; about 1 min and 2.0 GB, by earlier records"
    )
    assert ahead.recorded(make_spec(), store).seconds == 2 + 40 + 16 + 7


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # 3 passes x 0.5 s x 10 steps x 2 micro-batches; 3 batches of (0.5 + 2 tokens x 0.5) s, twice
        ({"eval": {"max_new_tokens": 2}}, "at most about 39 s, by one measured batch"),
        # 10 rows, 2 in a micro-batch of 0.5 s, twice
        ({"model": {"kind": "classifier"}}, "about 35 s, by one measured batch"),
        ({"model": {"kind": "decision"}}, "about 30 s without the episodes, by one measured batch"),
    ],
)
def test_without_records_one_batch_is_measured(changes, expected, store, monkeypatch):
    class Module:
        def parameters(self):
            import torch

            return iter([torch.zeros(1)])

    bundle = type("Bundle", (), {"module": Module()})()
    monkeypatch.setattr(ahead, "_seconds", lambda action: 0.5)
    spec = make_spec({"train": {"micro_batch_size": 2}} | changes)
    assert ahead.outlook(spec, store, None, bundle, [{}] * 8, 10).endswith(f"; {expected}")


def test_the_memory_of_a_long_run_is_said_too(store, monkeypatch):
    monkeypatch.setattr(ahead, "_seconds", lambda action: 5.0)
    monkeypatch.setattr(ahead.plan_cost, "cost_of", lambda settings: type("Cost", (), {"peak": settings.seed * 1e9}))
    spec = make_spec({"model": {"kind": "decision"}}, seed=3)
    assert ahead.outlook(spec, store, None, None, [{}] * 8, 10).endswith("measured batch, and 3.0 GB, by arithmetic")
    monkeypatch.setattr(ahead.plan_cost, "cost_of", lambda settings: 1 / 0)
    assert ahead.outlook(spec, store, None, None, [{}] * 8, 10).endswith("measured batch")
