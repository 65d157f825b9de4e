"""W&B can fail at every call: one warning, and the run goes on. No network in these tests."""

from __future__ import annotations

import sys
import threading

import pytest
import wandb

from eva_bench.records import wandb as tracking
from eva_bench.records.wandb import Tracker, logged_in
from eva_bench.settings.schema import TrackingSettings
from eva_bench.system.signals import Interrupted
from tests.records import record

RECORD = record(
    run_id="r",
    metrics_before={"m": 0.1},
    metrics={"m": 0.5},
    ranks={"a": 3, "b": 5},
    costs={"train": {"seconds": 2.0, "peak_bytes": 1}},
)


class FakeRun:
    """What the tracker uses of a W&B run; one of its calls can be made to fail."""

    url = "https://wandb.example/run"

    def __init__(self, failing: str | None = None, error: type[BaseException] = OSError):
        self.failing, self.logged, self.finished, self.error = failing, [], None, error
        self.summary = self

    def _maybe_fail(self, name):
        if name == self.failing:
            raise self.error(f"{name} is broken\nwith a second line")

    def update(self, values):
        self._maybe_fail("summary")
        self.logged.append(values)

    def log(self, values):
        self._maybe_fail("log")
        self.logged.append(values)

    def finish(self, exit_code):
        self._maybe_fail("finish")
        self.finished = exit_code


def whole_run(monkeypatch, tmp_path, run, mode="offline") -> Tracker:
    def init(**arguments):
        run._maybe_fail("init")
        run.arguments = arguments
        return run

    monkeypatch.setattr(wandb, "init", init)
    tracker = Tracker(TrackingSettings(mode=mode, project="p"), tmp_path)
    tracker.start("r", {"seed": 0}, "group")
    for step in range(5):
        tracker.log({"train/loss": 1.0, "train/step": step})
    tracker.finish(RECORD)
    return tracker


@pytest.mark.parametrize("error", [OSError, SystemExit, GeneratorExit])
@pytest.mark.parametrize("failing", ["init", "log", "summary", "finish"])
def test_an_error_at_any_call_is_one_warning(failing, error, monkeypatch, tmp_path, capsys):
    whole_run(monkeypatch, tmp_path, FakeRun(failing, error))
    warning = capsys.readouterr().err
    assert warning.count(f"warning: tracking is switched off for this run: {error.__name__}") == 1
    assert f"{failing} is broken" in warning and "second line" not in warning and warning.count("\n") == 1


def test_an_import_that_leaves_the_program_is_a_warning_too(monkeypatch, tmp_path, capsys):
    (tmp_path / "wandb.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb")
    tracker = Tracker(TrackingSettings(mode="offline"), tmp_path)
    tracker.start("r", {}, "group")
    assert tracker.broken and "switched off for this run: SystemExit" in capsys.readouterr().err


def test_a_finish_that_hangs_ends_in_a_warning(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tracking, "FINISH_S", 0.2)
    run, released = FakeRun(), threading.Event()
    run.finish = lambda exit_code: released.wait(60)
    tracker = whole_run(monkeypatch, tmp_path, run)
    assert not released.is_set() and tracker.broken  # nobody waited for it
    released.set()
    assert "did not finish within 0.2 s" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [KeyboardInterrupt, Interrupted])
def test_a_wish_to_stop_is_no_error_of_the_mirror(asked, monkeypatch, tmp_path):
    with pytest.raises(asked):
        whole_run(monkeypatch, tmp_path, FakeRun("log", asked))


def test_everything_that_matters_reaches_the_mirror(monkeypatch, tmp_path, capsys):
    run = FakeRun()
    tracker = whole_run(monkeypatch, tmp_path, run)
    merged = {key: value for values in run.logged for key, value in values.items()}
    assert {
        "train/loss": 1.0,
        "before/m": 0.1,
        "after/m": 0.5,
        "status": "ok",
        "seconds/train": 2.0,
    }.items() <= merged.items()
    assert isinstance(merged["ranks"], wandb.Histogram) and run.finished == 0
    assert run.arguments["id"] == "r" and run.arguments["config"] == {"seed": 0} and run.arguments["mode"] == "offline"
    assert tracker.where.startswith("offline") and capsys.readouterr().err == ""


def test_off_never_touches_wandb(monkeypatch, tmp_path):
    run = FakeRun("init")
    tracker = whole_run(monkeypatch, tmp_path, run, mode="off")
    assert tracker.where == "off" and run.logged == [] and list(tmp_path.iterdir()) == []


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    return tmp_path


def test_logged_in_means_a_key_in_the_environment_or_in_netrc(nobody, monkeypatch):
    assert not logged_in()
    netrc = nobody / ".netrc"
    netrc.write_text("machine elsewhere.example login a password b\n")
    netrc.chmod(0o600)
    assert not logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.example/")  # one's own server
    assert logged_in()
    monkeypatch.delenv("WANDB_BASE_URL")
    netrc.write_text("machine api.wandb.ai login user password test\n")
    assert logged_in()
    netrc.write_text("this is no netrc file (\n")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "test")
    assert logged_in()


@pytest.mark.parametrize(("key", "expected"), [("", "offline"), ("test", "online")])
def test_auto_is_online_only_where_somebody_is_logged_in(key, expected, nobody, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", key)
    run = FakeRun()
    tracker = whole_run(monkeypatch, tmp_path, run, mode="auto")
    assert run.arguments["mode"] == expected
    assert tracker.where == (run.url if expected == "online" else f"offline, {tmp_path / 'wandb'}")
