"""Records and claims on disk: many writers, dead owners, damaged files, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from pydantic import ValidationError

from eva_bench.records.record import SCHEMA_VERSION, Record, load_record
from eva_bench.records.store import Busy, Store
from tests.conftest import ROOT


def record(run_id="r1", status="ok", **changes) -> Record:
    values = {"train_id": "t", "init_id": "i", "scale": "pocket", "task": "gsm8k", "method": "lora", "seed": 0, "spec": {"seed": 0}}
    return Record(run_id=run_id, status=status, **(values | changes))


def test_round_trip_with_every_kind_of_value(tmp_path):
    written = record(
        metrics={"exact_match_strict": 0.25, "reference_loss": float("inf")}, curve=[[1, 2.5, float("inf"), 1e-3]], ranks={"a.b": 3},
        costs={"train": {"seconds": 1.5, "peak_bytes": 10}}, initialisation={"method": {"x": [1, None, "ä"]}}, error="…",
    )  # fmt: skip
    store = Store(tmp_path)
    store.check_writable()
    store.write(written)
    assert store.read("r1") == written
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob(".*"))


def test_nan_metrics_do_not_make_a_record_unreadable(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    store.write(record(status="failed", metrics={"reference_loss": float("nan")}))
    assert str(store.read("r1").metrics["reference_loss"]) == "nan"


def test_records_of_a_newer_version_and_other_files_are_refused():
    content = json.loads(record().model_dump_json())
    with pytest.raises(ValueError, match="newer than this eva-bench"):
        load_record(content | {"schema_version": SCHEMA_VERSION + 1})
    for wrong in ([], {"a": 1}, {"schema_version": "1"}, "text"):
        with pytest.raises(ValueError, match="not an eva-bench record"):
            load_record(wrong)
    with pytest.raises(ValidationError):
        load_record(content | {"surprise": 1})
    with pytest.raises(ValidationError):
        load_record(content | {"status": "fine"})


def test_an_ok_record_is_never_overwritten_or_lost(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    store.write(record(status="interrupted"))
    store.write(record(metrics={"m": 1.0}))
    store.write(record(status="failed", error="later"))
    store.write(record(status="interrupted"))
    assert store.read("r1").status == "ok" and store.read("r1").metrics == {"m": 1.0}
    store.write(record(metrics={"m": 2.0}))
    assert store.read("r1").metrics == {"m": 2.0}
    kept = [json.loads(path.read_text()) for path in store.records.glob("superseded/*.json")]
    assert sorted(item["status"] for item in kept) == ["failed", "interrupted", "interrupted", "ok"]
    assert [item["metrics"] for item in kept if item["status"] == "ok"] == [{"m": 1.0}]
    assert [item.run_id for item in store.read_all()] == ["r1"]


@pytest.mark.parametrize("damage", ['{"schema_version": 1, "run', "", "[1, 2]", "\x00\x01", '{"schema_version": 99}'])
def test_a_corrupt_record_is_reported_skipped_and_kept(damage, tmp_path, capsys):
    store = Store(tmp_path)
    store.check_writable()
    store.write(record("a"))
    store.write(record("c"))
    (store.records / "b.json").write_text(damage)
    assert [item.run_id for item in store.read_all()] == ["a", "c"]
    warning = capsys.readouterr().err
    assert warning.count("b.json is not a readable record and is skipped") == 1 and "Traceback" not in warning
    assert store.read("b") is None
    store.write(record("b"))
    assert store.read("b").status == "ok"
    assert [path.read_text() for path in store.records.glob("superseded/b.*")] == [damage]


def test_a_file_that_is_not_text_is_skipped_too(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    (store.records / "b.json").write_bytes(b"\xff\xfe\x00")
    (store.records / "d.json").mkdir()
    assert list(store.read_all()) == []


def test_one_claim_at_a_time(tmp_path):
    store = Store(tmp_path)
    told = []
    with store.claim("k", wait=False):
        with pytest.raises(Busy), store.claim("k", wait=False):
            raise AssertionError("claimed twice")
        with store.claim("other", wait=False):
            pass
    with store.claim("k", wait=True, on_wait=lambda: told.append(1)):
        assert not told  # free again after the block
    assert not list(store.claims.glob("*"))


def test_a_claim_is_released_when_the_work_fails(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.claim("k", wait=False):
        raise RuntimeError
    with store.claim("k", wait=False):
        pass


def test_waiting_for_a_claim_tells_once_and_gets_it(tmp_path):
    store, told, order = Store(tmp_path), [], []

    def second():
        with store.claim("k", wait=True, on_wait=lambda: told.append(1)):
            order.append("second")

    with store.claim("k", wait=False):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"] and told == [1]


COUNT = """
import sys, time
from pathlib import Path
from eva_bench.records.store import Store
store, counter = Store(sys.argv[1]), Path(sys.argv[1]) / "counter"
for _ in range(8):
    with store.claim("k", wait=True):
        value = int(counter.read_text())
        time.sleep(0.002)
        counter.write_text(str(value + 1))
"""


def python(code, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_processes_take_turns_without_losing_anything(tmp_path):
    (tmp_path / "counter").write_text("0")
    processes = [python(COUNT, tmp_path) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "24"


DIE = """
import os, sys
from eva_bench.records.store import Store
with Store(sys.argv[1]).claim("k", wait=False):
    os._exit(9)
"""


def test_the_claim_of_a_dead_process_is_taken_over(tmp_path):
    assert python(DIE, tmp_path).wait(timeout=60) == 9
    store = Store(tmp_path)
    assert list(store.claims.glob("*.claim"))
    began = time.monotonic()
    with store.claim("k", wait=True):
        assert time.monotonic() - began < 5
    assert not list(store.claims.glob("*.claim"))
