"""W&B as a mirror: it can be filled later, it can be made from records alone, and an interrupted run stays one run."""

from __future__ import annotations

import json
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from eva_bench.records import wandb as tracking
from eva_bench.records import wandb_sync
from eva_bench.records.store import Store

LORA = ["method=lora", "task=gsm8k"]


def entries(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """Entries of a .wandb file: LevelDB's log format after seven bytes of head."""
    position, entry = 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block  # no header fits into the rest of a block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        entry += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last of several parts
            yield entry
            entry = b""


def whole(file: Path, patience_s: float = 30) -> list[wandb_internal_pb2.Record]:
    """The entries of a run that ended; W&B's own process may still be writing the last ones when `finish` returns."""
    until = time.monotonic() + patience_s
    while True:
        records = [wandb_internal_pb2.Record.FromString(data) for data in entries(file.read_bytes())]
        if any(record.HasField("exit") for record in records) or time.monotonic() > until:
            return records
        time.sleep(0.1)


def read(folder: Path) -> dict:
    """What one offline run holds: id, group, tags, and its logged steps and summary."""
    (file,) = folder.glob("*.wandb")
    held = {"steps": [], "summary": {}}
    for record in whole(file):
        if record.HasField("run"):
            held |= {"id": record.run.run_id, "group": record.run.run_group, "tags": list(record.run.tags)}
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            held["steps"] += [items["train/step"]] if "train/step" in items else []
        if record.HasField("summary"):
            held["summary"] |= {
                i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update
            }
    return held


@pytest.fixture
def usual(small_run) -> list[str]:
    return [item for item in small_run if item != "tracking=off"]


def test_a_mirror_made_from_the_record_holds_what_the_run_sent(command, usual, places, tmp_path):
    code, _, err = command("suite=smoke", "method=lora", *usual, *places, "tracking.mode=offline")
    assert code == 0 and "switched off" not in err
    (sent,) = map(read, wandb_sync.offline_runs(tmp_path / "runs"))
    (record,) = Store(tmp_path / "results").read_all()
    assert sent["id"] == record.run_id and sent["steps"] == [1, 2] and sent["group"] == "pocket/smoke"
    assert sent["tags"] == ["smoke", "pocket", "gsm8k", "lora"]

    arguments = [
        "rebuild=true",
        "mode=offline",
        f"results_dir={tmp_path / 'results'}",
        f"runs_dir={tmp_path / 'again'}",
    ]
    assert wandb_sync.main(arguments) == 0
    (made,) = map(read, wandb_sync.offline_runs(tmp_path / "again"))
    assert {key: made[key] for key in ("id", "group", "tags", "steps")} == {
        key: sent[key] for key in ("id", "group", "tags", "steps")
    }
    for name, value in record.metrics.items():
        assert made["summary"][f"after/{name}"] == sent["summary"][f"after/{name}"] == pytest.approx(value)
    assert wandb_sync.main([*arguments, "suite=other"]) == 0 and len(wandb_sync.offline_runs(tmp_path / "again")) == 1


def test_an_interrupted_run_continues_under_its_id(command, usual, places, monkeypatch, tmp_path):
    log = tracking.Tracker.log

    def log_and_stop(self, values):
        log(self, values)
        if values["train/step"] == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(tracking.Tracker, "log", log_and_stop)
    arguments = [*LORA, *usual, *places, "train.steps=4", "tracking.mode=offline"]
    assert command(*arguments)[0] == 130
    monkeypatch.setattr(tracking.Tracker, "log", log)
    time.sleep(1)  # W&B names its folders by the second
    assert command(*arguments)[0] == 0
    first, second = map(read, wandb_sync.offline_runs(tmp_path / "runs"))
    assert first["id"] == second["id"] and first["steps"] + second["steps"] == [1, 2, 3, 4] and second["steps"]


def test_offline_runs_are_sent_in_their_order_in_one_call(monkeypatch, tmp_path):
    names = [
        "b/wandb/offline-run-20260101_000002-b",
        "a/wandb/offline-run-20260101_000003-a",
        "a/wandb/offline-run-20260101_000001-a",
    ]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    calls = []
    monkeypatch.setattr(
        wandb_sync.subprocess, "run", lambda command: calls.append(command) or type("", (), {"returncode": 0})
    )
    monkeypatch.setattr(wandb_sync, "logged_in", lambda: True)
    assert wandb_sync.main([f"runs_dir={tmp_path}"]) == 0
    (call,) = calls
    assert call[1:5] == ["-m", "wandb", "sync", "--yes"]
    assert [Path(item).name[-1] for item in call[5:]] == ["a", "a", "b"] and call[5] < call[6]
    assert wandb_sync.main([f"runs_dir={tmp_path / 'none'}"]) == 0 and len(calls) == 1


def test_mistakes_are_one_sentence(monkeypatch, capsys, tmp_path):
    assert (
        wandb_sync.main(["run_dir=x"]) == 2
        and "Unknown argument 'run_dir'. Did you mean 'runs_dir'" in capsys.readouterr().err
    )
    monkeypatch.setattr(wandb_sync, "logged_in", lambda: False)
    (tmp_path / "a/wandb/offline-run-20260101_000001-a").mkdir(parents=True)
    assert wandb_sync.main([f"runs_dir={tmp_path}"]) == 2
    assert "`wandb login` first; 1 offline runs wait." in capsys.readouterr().err
    assert (
        wandb_sync.main(["rebuild=true", f"results_dir={tmp_path}"]) == 2 and "wandb login" in capsys.readouterr().err
    )


@pytest.mark.parametrize("failing", ["init", "log", "summary", "Histogram", "finish"])
def test_wandb_that_raises_at_any_call_costs_a_run_nothing(failing, command, usual, places, monkeypatch, tmp_path):
    class Run:
        url = "nowhere"

        def __getattr__(self, name):
            if name == failing:
                raise ConnectionError(f"no {name}")
            return Run() if name == "summary" else lambda *_, **__: None

    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0 if failing == "init" else Run())
    if failing == "Histogram":
        monkeypatch.setattr(wandb, "Histogram", lambda *_: 1 / 0)
    code, _, err = command(*LORA, *usual, *places, "tracking.mode=offline")
    assert code == 0 and err.count("tracking is switched off for this run") == 1
    assert [record.status for record in Store(tmp_path / "results").read_all()] == ["ok"]
