"""How long the rest of a sweep takes."""

import pytest

from eva_bench.records.store import Store
from eva_bench.sweeps import remaining
from eva_bench.system.progress import duration
from tests.records import make_spec, record


def test_the_time_left_is_the_work_left_at_the_speed_so_far(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(remaining.time, "monotonic", lambda: now[0])
    store = Store(tmp_path)
    store.check_writable()
    for seed, seconds in ((7, 20.0), (8, 40.0)):  # of another protocol: its seconds still say something
        store.write(record("lora", seed, costs={"train": {"seconds": seconds, "peak_bytes": 1}}))
    where = {"where": {"results_dir": str(tmp_path)}}
    specs = [make_spec(where, method=method, seed=seed) for method in ("lora", "eva") for seed in (0, 1)]
    left = remaining.Remaining(specs)
    assert list(left.expected_s.values()) == [30.0] * 4  # of eva nothing is known: what is usual
    assert left.seconds_left() is None and left.before(2) == "about 1 min, by the seconds of earlier records"
    now[0] = 50.0
    left.finish(specs[0].run_id)
    assert left.seconds_left() == pytest.approx(150.0)
    left.finish("a cell of somebody else")
    assert left.seconds_left() == pytest.approx(150.0)


def test_without_records_nothing_is_promised(tmp_path):
    left = remaining.Remaining([make_spec({"where": {"results_dir": str(tmp_path)}})])
    assert "after the first cells" in left.before(2) and left.seconds_left() is None


@pytest.mark.parametrize(("seconds", "text"), [(59, "59 s"), (90, "2 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")])
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
