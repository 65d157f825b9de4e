"""Records and claims on disk: many writers, dead owners, damaged files, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eva_bench.records import claim as claims
from eva_bench.records.record import SCHEMA_VERSION, Record, load_record
from eva_bench.records.store import Busy, ClaimLost, Store, read_record
from eva_bench.system.errors import UserError
from tests.conftest import ROOT
from tests.records import make_spec

SPEC = make_spec()
ID = SPEC.run_id


def record(run_id=ID, status="ok", **changes) -> Record:
    return Record(run_id=run_id, status=status, **({"train_id": "t", "init_id": "i", "spec": SPEC} | changes))


def test_round_trip_with_every_kind_of_value(tmp_path):
    written = record(
        metrics={"exact_match_strict": 0.25, "reference_loss": float("inf")},
        curve=[(1, 2.5, float("inf"), 1e-3)],
        ranks={"a.b": 3},
        costs={"train": {"seconds": 1.5, "peak_bytes": 10}},
        initialisation={"method": {"x": [1, None, "ä"]}},
        error="…",
    )
    store = Store(tmp_path)
    store.check_writable()
    store.write(written)
    assert store.read(SPEC) == written
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob(".*"))


def test_nan_metrics_do_not_make_a_record_unreadable(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    store.write(record(status="failed", metrics={"reference_loss": float("nan")}))
    assert str(store.read(SPEC).metrics["reference_loss"]) == "nan"


def test_records_of_another_version_and_other_files_are_refused():
    content = json.loads(record().to_json())
    for wrong in (content | {"schema_version": SCHEMA_VERSION + 1}, [], "text", None):
        with pytest.raises(ValueError, match="not a record of schema version"):
            load_record(json.dumps(wrong))
    for wrong in (
        content | {"surprise": 1},
        content | {"status": "fine"},
        {key: content[key] for key in content if key != "spec"},
    ):
        with pytest.raises(ValueError, match=r"surprise|status|spec") as refused:
            load_record(json.dumps(wrong))
        assert "\n" not in str(refused.value)


def test_a_record_is_small_and_scores_and_curves_are_easy_to_find():
    layers = {f"model.layers.{i}.self_attn.{name}": 0.123456789 for i in range(4) for name in "qkvo"}
    curve = [(step, 1 / step, 1 / step, 1e-3 / step) for step in range(1, 201)]
    whole = record(curve=curve, ranks=dict.fromkeys(layers, 8), initialisation={"explained_variance": layers})
    text = whole.to_json()
    again = load_record(text)
    assert len(text) < 6 * 1024 and again.ranks == whole.ranks and again.to_json() == text
    assert again.initialisation["explained_variance"] == pytest.approx(layers, rel=1e-4)
    assert again.curve[0][0] == 1 and again.curve[-1][0] == 200 and len(again.curve) <= 40
    assert len([line for line in text.splitlines() if '"curve"' in line]) == 1


def test_an_ok_record_is_never_overwritten_or_lost(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    store.write(record(status="interrupted"))
    store.write(record(metrics={"m": 1.0}))
    store.write(record(status="failed", error="later"))
    store.write(record(status="interrupted"))
    assert store.read(SPEC).status == "ok" and store.read(SPEC).metrics == {"m": 1.0}
    store.write(record(metrics={"m": 2.0}))
    assert store.read(SPEC).metrics == {"m": 2.0}
    kept = [json.loads(path.read_text()) for path in store.superseded.glob("*.json")]
    assert sorted(item["status"] for item in kept) == ["failed", "interrupted", "interrupted", "ok"]
    assert [item["metrics"] for item in kept if item["status"] == "ok"] == [{"m": 1.0}]
    assert [item.run_id for item in store.read_all()] == [ID]


@pytest.mark.parametrize(
    "damage", ['{"schema_version": 1, "run', "", "[1, 2]", "\x00\x01", '{"schema_version": 99}', "[" * 99999]
)
def test_a_corrupt_record_is_reported_skipped_and_kept(damage, tmp_path, capsys):
    store, other = Store(tmp_path), make_spec(seed=1)
    store.check_writable()
    store.write(record())
    store.path(other).write_text(damage)
    assert [item.run_id for item in store.read_all()] == [ID]
    warning = capsys.readouterr().err
    assert (
        warning.count(f"{other.run_id}.json is not a readable record and is skipped") == 1
        and "Traceback" not in warning
    )
    assert store.read(other) is None
    store.write(record(other.run_id, spec=other))
    assert store.read(other).status == "ok"
    assert [path.read_text() for path in store.superseded.glob(f"{other.run_id}.*")] == [damage]


@pytest.mark.parametrize("part", ["model", "stage", "task", "train", "protocol", "command line"])
def test_a_record_that_lacks_a_part_is_skipped_and_the_rest_is_read(part, tmp_path, capsys):
    store = Store(tmp_path)
    store.check_writable()
    store.write(record())
    content = json.loads(store.path(SPEC).read_text())
    if part == "command line":
        content["origins"] = {"command_line": [1, None]}
    else:
        del content["spec"][part]
    (store.records / "odd.json").write_text(json.dumps(content))
    assert [item.run_id for item in store.read_all()] == [ID]
    assert capsys.readouterr().err.count("odd.json is not a readable record and is skipped") == 1


def test_a_file_that_is_not_text_is_skipped_too(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    (store.records / "b.json").write_bytes(b"\xff\xfe\x00")
    (store.records / "d.json").mkdir()
    os.mkfifo(store.records / "pipe.json")
    (store.records / "deep.json").write_text('{"a":' * 5000 + "1" + "}" * 5000)
    assert list(store.read_all()) == [] and read_record(store.records / "none.json") is None


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
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_take_turns_without_losing_anything(tmp_path):
    (tmp_path / "counter").write_text("0")
    processes = [python(COUNT, tmp_path) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "24"


STAND_STILL = """
import sys, time
from eva_bench.records import claim
from eva_bench.records.store import ClaimLost, Store
claim.HEARTBEAT_S = 0.2
store = Store(sys.argv[1])
try:
    with store.claim("k", wait=False):
        print("held", flush=True)
        while True:
            store.check_claims(now=False)
            time.sleep(0.01)
except ClaimLost:
    print("lost", flush=True)
    time.sleep(60)
"""


def test_who_stood_still_stops_and_leaves_the_claim_to_its_successor(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(claims, "STALE_S", 0.5)
    first, store = python(STAND_STILL, tmp_path), Store(tmp_path)
    try:
        assert first.stdout.readline() == "held\n"
        first.send_signal(signal.SIGSTOP)
        with store.claim("k", wait=True):
            (path,) = store.claims.glob("*.claim")
            monkeypatch.setattr(
                claims.Claim, "beat", lambda self: True
            )  # whoever touches the file now is the other one
            time.sleep(0.3)
            touched, content = path.stat().st_mtime_ns, path.read_text()
            first.send_signal(signal.SIGCONT)
            assert first.stdout.readline() == "lost\n"
            time.sleep(0.6)
            assert (path.stat().st_mtime_ns, path.read_text()) == (touched, content)
            store.check_claims()
    finally:
        first.kill()
        first.wait()


def test_nothing_is_recorded_under_a_claim_that_is_anothers(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    with pytest.raises(ClaimLost), store.claim(ID, wait=False):
        (path,) = store.claims.glob("*.claim")
        path.write_text("somebody else")
        store.write(record())
    assert path.read_text() == "somebody else" and store.read(SPEC) is None


class Full:
    """A new file on a disk that has no room for its content."""

    def __init__(self, path: Path):
        path.touch()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def write(self, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_claim_that_cannot_be_written_leaves_no_file(tmp_path, monkeypatch):
    store, real = Store(tmp_path), Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", *rest: Full(self) if mode == "x" else real(self, mode, *rest)
    )
    with pytest.raises(UserError, match="No space left"), store.claim("k", wait=False):
        raise AssertionError("claimed")
    assert not list(store.claims.glob("*"))


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
