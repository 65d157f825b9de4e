"""What storage does to a run: full disks, read-only folders, damaged files, clocks, and many writers at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eva_bench.records import claim as claims
from eva_bench.records import environment
from eva_bench.records.store import Store
from eva_bench.run import cache, scores, train
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from tasks import harness
from tests.conftest import ROOT
from tests.forked import Command

LORA = ["method=lora", "task=gsm8k"]


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or path.parent.name == "claims"]


@pytest.fixture
def finished(command, small_run, places, tmp_path):
    """A finished run: its specification, record file and adapter bytes."""
    assert command(*LORA, *small_run, *places)[0] == 0
    spec = compose_spec([*LORA, *small_run, *places])
    return spec, Store(tmp_path / "results").path(spec), adapter(spec)


def adapter(spec) -> bytes:
    return (Path(spec.where.runs_dir) / spec.run_id / "adapter/adapter_model.safetensors").read_bytes()


def test_a_full_disk_while_the_record_is_written_loses_nothing_else(command, small_run, places, monkeypatch, tmp_path):
    with monkeypatch.context() as broken:
        spec = compose_spec([*LORA, *small_run, *places])
        store = Store(tmp_path / "results")
        broken.setattr(Store, "write", _write_on_a_full_disk)
        code, _, err = command(*LORA, *small_run, *places)
    assert code == 1 and "No space left on device" in err and "the same command continues" in err
    assert not list(store.records.rglob("*.json")) and not leftovers(tmp_path)
    monkeypatch.setattr(train, "fit", None)  # the training is in the cache: a call would fail
    assert command(*LORA, *small_run, *places)[0] == 0
    assert store.read(spec).status == "ok"


def _write_on_a_full_disk(self, record):
    """The real writing, on a disk that is full at the moment of the fsync."""
    real, os.fsync = os.fsync, full_disk
    try:
        return _real_write(self, record)
    finally:
        os.fsync = real


_real_write = Store.write


def test_a_full_disk_never_damages_the_record_that_is_there(finished, monkeypatch, tmp_path):
    spec, path, _ = finished
    before = path.read_bytes()
    record = Store(tmp_path / "results").read(spec)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError):
        Store(tmp_path / "results").write(record)
    assert path.read_bytes() == before and not leftovers(tmp_path / "results")


def test_a_checkpoint_on_a_full_disk_is_a_warning_and_the_run_goes_on(
    command, small_run, places, monkeypatch, tmp_path
):
    monkeypatch.setattr("eva_bench.run.checkpoint.torch.save", full_disk)
    code, _, err = command(*LORA, *small_run, *places, "train.checkpoint_minutes=0")
    assert code == 0 and err.count("cannot be written") == 2  # one per step
    assert not leftovers(tmp_path)


def test_results_that_cannot_be_written_are_refused_before_anything_is_computed(command, small_run, places):
    code, _, err = command(*LORA, *small_run, places[1], "results_dir=/proc/results")  # even root cannot write there
    assert code == 2 and "error: The results folder '/proc/results' cannot be written" in err


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


@pytest.mark.parametrize(
    "what",
    [
        "cache/init/*",
        "cache/train/*",
        "cache/before/*/metrics.json",
        "cache/before/*/samples.jsonl",
        "*/samples.jsonl",
        "cache/composed.json",
        "cache/digests.json",
    ],
)
def test_a_truncated_file_is_made_again(what, finished, command, small_run, places, tmp_path):
    spec, record_path, wanted = finished
    metrics = json.loads(record_path.read_text())["metrics"]
    record_path.unlink()  # as after a crash just before the record
    if what == "cache/composed.json":
        assert command("-m", *LORA, *small_run, *places, "dry_run=true")[0] == 0
    (path,) = (tmp_path / "runs").glob(what)
    cut(path)
    assert command("-m", *LORA, *small_run, *places)[0] == 0
    assert adapter(spec) == wanted and json.loads(record_path.read_text())["metrics"] == metrics


def test_samples_that_end_within_a_character_are_answered_again(finished, command, small_run, places, tmp_path):
    spec, record_path, _ = finished
    samples = tmp_path / "runs" / spec.run_id / "samples.jsonl"
    wanted = samples.read_bytes()
    record_path.unlink()
    samples.write_bytes(wanted[: wanted.rindex(b"\n", 0, -1) + 1] + '{"row": "é'.encode()[:-1])
    assert command(*LORA, *small_run, *places)[0] == 0
    assert samples.read_bytes() == wanted


def test_old_answers_are_not_scored_for_new_weights(finished, command, small_run, places, tmp_path, monkeypatch):
    """The weights of an edited training under the run id of the old one: every row is answered again."""
    spec, record_path, _ = finished
    samples = tmp_path / "runs" / spec.run_id / "samples.jsonl"
    old, asked, answer = samples.read_bytes(), [], harness._run_chunk
    monkeypatch.setattr(harness, "_run_chunk", lambda *given: asked.append(1) or answer(*given))
    record_path.unlink()
    assert command(*LORA, *small_run, *places)[0] == 0 and not asked  # the same weights: nothing to answer
    record_path.unlink()
    (trained,) = (tmp_path / "runs/cache/train").glob("*.safetensors")
    tensors, facts = cache.load_tensors(trained)
    cache.save_tensors(trained, {name: tensor + 0.5 for name, tensor in tensors.items()}, facts)
    assert command(*LORA, *small_run, *places)[0] == 0
    assert asked and samples.read_bytes() != old


def test_after_an_edit_of_the_code_nothing_comes_from_a_cache(
    finished, command, small_run, places, tmp_path, monkeypatch
):
    spec, record_path, _ = finished
    asked, answer = [], harness._run_chunk
    monkeypatch.setattr(harness, "_run_chunk", lambda *given: asked.append(1) or answer(*given))
    for owner in (environment, scores):
        monkeypatch.setattr(owner, "code_checksum", lambda: "of other code")
    record_path.unlink()
    assert command(*LORA, *small_run, *places)[0] == 0
    assert Store(tmp_path / "results").read(spec).reused == {"eval_before": False, "init": False, "train": False}
    assert len(asked) == 2  # before and after training


def test_weights_that_cannot_be_kept_cost_a_finished_run_nothing(command, small_run, places, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "save_file", full_disk)
    code, out, err = command(*LORA, *small_run, *places)
    assert code == 0 and "OK" in out and "the trained weights cannot be kept" in err


def test_a_claim_on_a_full_disk_is_one_sentence(command, small_run, places, monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "_create", full_disk)
    code, _, err = command(*LORA, *small_run, *places)
    assert code == 2 and "cannot be written: No space left on device" in err and "Traceback" not in err


def test_a_truncated_checkpoint_starts_the_training_again(finished, command, small_run, places, tmp_path):
    spec, record_path, wanted = finished
    record_path.unlink()
    (trained,) = (tmp_path / "runs/cache/train").glob("*.safetensors")
    trained.unlink()
    trained.with_suffix(".checkpoint").write_bytes(b"PK\x03\x04 half a checkpoint")
    code, _, err = command(*LORA, *small_run, *places)
    assert code == 0 and "cannot be read and is ignored" in err and adapter(spec) == wanted


def test_a_truncated_record_is_kept_aside_and_made_again(finished, command, small_run, places, tmp_path):
    spec, record_path, wanted = finished
    cut(record_path)
    damaged = record_path.read_bytes()
    code, _, err = command(*LORA, *small_run, *places)
    assert code == 0 and "not a readable record" in err and adapter(spec) == wanted
    assert Store(tmp_path / "results").read(spec).status == "ok"
    assert damaged in [path.read_bytes() for path in Store(tmp_path / "results").superseded.iterdir()]


def test_a_clock_that_goes_backwards_changes_nothing(small_run, places, monkeypatch, tmp_path):
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * next(calls))
    spec = compose_spec([*LORA, *small_run, *places])
    assert run_cell(spec) == 0
    record = Store(tmp_path / "results").read(spec)
    assert record.status == "ok" and all(cost.seconds >= 0 for cost in record.costs.values())
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("offset", [-7200, 7200])
def test_a_live_claim_is_respected_whatever_the_clocks_say(offset, tmp_path, monkeypatch):
    """The owner runs on another machine whose clock is two hours off; it beats, so it lives."""
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.2)
    path = tmp_path / "cell.claim"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    beating = subprocess.Popen(
        [sys.executable, "-c",
         f"import os, time\nwhile True:\n os.utime({str(path)!r}, (time.time() + {offset},) * 2); time.sleep(0.1)"]
    )  # fmt: skip
    try:
        time.sleep(0.5)
        with pytest.raises(claims.Busy), claims.claim(path, wait=False):
            pass
    finally:
        beating.kill()
        beating.wait()
    with claims.claim(path, wait=False):  # it no longer beats: taken over, two hours off as it is
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_claim_that_was_never_filled_in_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.1)
    path = tmp_path / "cell.claim"
    path.touch()
    os.utime(path, (time.time() - 600,) * 2)
    with claims.claim(path, wait=False):
        assert path.read_text()


def test_a_killed_owner_of_a_claim_is_succeeded_by_the_one_that_waits(small_run, places, tmp_path):
    long = [*LORA, *small_run, *places, "train.steps=100000"]
    first = Command(long, tmp_path / "first.txt")
    first.wait_for("loading model and data")
    claim = Store(tmp_path / "results").claims / f"{compose_spec(long).run_id}.claim"
    assert claim.exists()
    second = Command(long, tmp_path / "second.txt")
    second.wait_for("waiting: another process")
    first.process.kill()
    first.end()
    second.wait_for("before training")
    second.send(signal.SIGTERM)
    assert second.end() == 130 and not claim.exists()


def start(arguments: list[str], root: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "run.py", *arguments]
    return subprocess.Popen(command, cwd=root, env=environment, text=True, stdout=-1, stderr=-1)


def test_two_checkouts_share_one_results_folder(small_run, tmp_path):
    """Two copies of the code with their own runs folders: each cell is recorded once, both end well."""
    other = tmp_path / "checkout"
    for name in ("eva_bench", "baselines", "tasks", "conf"):
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", other)
    cells = ["-m", "method=lora,pissa", "task=gsm8k", *small_run, f"results_dir={tmp_path / 'results'}"]
    processes = [start([*cells, f"runs_dir={tmp_path / name}"], root) for name, root in (("a", ROOT), ("b", other))]
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    records = Store(tmp_path / "results").read_all()
    assert [record.status for record in records] == ["ok", "ok"] and not leftovers(tmp_path / "results")
    assert not list((tmp_path / "results").glob("superseded/*"))  # nobody did a cell twice
