"""Running again, interrupting, two at once: nothing is computed twice, nothing is lost, nothing collides."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eva_bench.methods.layer import Adapter
from eva_bench.records.record import load_record
from eva_bench.records.store import Store
from eva_bench.run import pipeline, train
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec
from tests.forked import Command

LORA = ["method=lora", "task=gsm8k"]


def adapter_bytes(runs, run_id: str) -> bytes:
    return (runs / run_id / "adapter/adapter_model.safetensors").read_bytes()


def test_a_run_does_not_fill_fresh_memory(monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # what fills it, unless told not to
    for fills in (True, False):
        with torch.profiler.profile() as seen:
            torch.empty(8)
        assert ("aten::fill_" in {event.key for event in seen.key_averages()}) == fills
        pipeline.seed_everything(compose_spec([*LORA, "tracking=off"]))


def test_the_same_command_twice_trains_once(command, small_run, places, monkeypatch, tmp_path):
    code, out, _ = command(*LORA, *small_run, *places)
    assert code == 0 and "settings of scale=pocket, model 'smollm2_135m' (model.path)" in out and "Next: " not in out
    assert "ahead: 4 answers before and after, 2 steps of 4 examples; at most about " in out
    for part in ("exact_match_strict", "reference_loss", "record", "adapter", "W&B"):
        assert part in out

    def no_training(*_, **__):
        raise AssertionError("trained twice")

    monkeypatch.setattr(train, "fit", no_training)
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}
    code, out, _ = command(*LORA, *small_run, *places)
    assert code == 0 and "already done" in out and "exact_match_strict" in out
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")} == before


def test_another_evaluation_reuses_the_training(command, small_run, places, monkeypatch, tmp_path):
    assert command(*LORA, *small_run, *places)[0] == 0
    monkeypatch.setattr(train, "fit", None)  # a call would fail
    code, out, _ = command(*LORA, *small_run, *places, "eval.limit=3")
    assert "training: done before with the same settings" in out
    records = Store(tmp_path / "results").read_all()
    assert code == 0 and len(records) == 2 and len({record.train_id for record in records}) == 1
    assert sorted(record.reused["train"] for record in records) == [False, True]


@pytest.mark.parametrize(("method", "reused"), [("olora", [False, True]), ("hrp", [False, False])])
def test_factors_that_depend_on_the_weights_alone_are_computed_once_for_all_seeds(
    method, reused, command, small_run, places, tmp_path
):
    for seed in ("0", "1"):
        assert command(f"method={method}", "task=gsm8k", f"seed={seed}", *small_run, *places)[0] == 0
    records = sorted(Store(tmp_path / "results").read_all(), key=lambda record: record.spec.seed)
    assert [record.reused["init"] for record in records] == reused


def test_force_keeps_the_old_record_beside_the_new(command, small_run, places, tmp_path):
    assert command(*LORA, *small_run, *places)[0] == 0
    (path,) = (tmp_path / "results/records").rglob("*.json")
    first = path.read_bytes()
    assert command(*LORA, *small_run, *places, "force=true")[0] == 0
    (old,) = (tmp_path / "results/superseded").glob("*.json")
    assert old.read_bytes() == first and load_record(path.read_bytes()).status == "ok"


def test_a_sweep_runs_every_cell_and_reports_the_worst_exit_code(command, small_run, places, tmp_path):
    sweep = ["-m", "method=lora,full", "task=gsm8k", "train.precision=float32,bf16", *small_run, *places]
    code, out, _ = command(*sweep)
    records = Store(tmp_path / "results").read_all()
    assert code == 0 and [record.status for record in records] == ["ok"] * 4
    assert f'4 of 4 cells were computed now. Tables: make tables ARGS="results_dir={tmp_path}/results"' in out
    assert "Next: " not in out
    assert len(re.findall(r"exact_match_strict \d\.\d{3}\b", out)) == 4  # of the table: percentages have one digit
    code, out, _ = command(*sweep)
    assert code == 0 and "0 of 4 cells were computed now, 4 from the records in" in out and "force=true" in out
    code, _, err = command("-m", *LORA, "adapter.rank=33,3", *[a for a in small_run if "rank" not in a], *places)
    assert code == 2 and "rank 33 is larger" in err
    status = sorted(record.status for record in Store(tmp_path / "results").read_all())
    assert status == ["failed"] + ["ok"] * 5  # the cell that can run did, and the other one says why it cannot


def test_broken_tracking_is_one_warning_and_the_run_goes_on(command, small_run, places, monkeypatch, tmp_path):
    import wandb

    def offended(**_):
        raise RuntimeError("no route to host\nand more lines")

    monkeypatch.setattr(wandb, "init", offended)
    usual = [argument for argument in small_run if argument != "tracking=off"]
    code, _, err = command(*LORA, *usual, *places, "tracking.mode=online")
    assert code == 0 and err.count("tracking is switched off for this run: RuntimeError: no route to host") == 1
    assert "and more lines" not in err
    assert Store(tmp_path / "results").read_all()[0].status == "ok"


def test_offline_tracking_holds_the_run_in_a_folder_of_its_own(command, small_run, places, tmp_path):
    usual = [argument for argument in small_run if argument != "tracking=off"]
    code, out, err = command(*LORA, *usual, *places, "tracking.mode=offline")
    assert code == 0 and "offline, " in out and "tracking is switched off" not in err
    assert list((tmp_path / "runs").glob("*/wandb/offline-run-*/*.wandb"))


@pytest.fixture(scope="module")
def long(small_run) -> list[str]:
    return [*LORA, *(argument for argument in small_run if "steps" not in argument), "train.steps=150"]


@pytest.fixture(scope="module")
def undisturbed(long, tmp_path_factory) -> Path:
    """The long run without an interruption: its folder with results and runs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_cell(compose_spec([*long, f"results_dir={folder / 'results'}", f"runs_dir={folder / 'runs'}"])) == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_record_and_the_same_command_continues(number, long, undisturbed, places, tmp_path):
    process = Command([*long, *places], tmp_path / "output.txt")
    process.wait_for("\ntraining: ")  # the first line of progress: training is on its way
    process.send(number)
    assert process.end() == 130 and "Traceback" not in process.said(), process.said()
    assert "INTERRUPTED" in process.said() and "the same command continues" in process.said()
    (record,) = Store(tmp_path / "results").read_all()
    assert record.status == "interrupted" and 0 < record.steps < 150
    assert not list((tmp_path / "results/claims").glob("*"))

    spec = compose_spec([*long, *places])
    assert run_cell(spec) == 0
    finished = Store(tmp_path / "results").read(spec)
    assert (finished.status, finished.resumed, finished.steps) == ("ok", 1, 150)
    assert adapter_bytes(tmp_path / "runs", spec.run_id) == adapter_bytes(undisturbed / "runs", spec.run_id)
    assert Store(undisturbed / "results").read(spec).curve == finished.curve


def test_two_seeds_started_together_do_not_collide_and_one_seed_twice_runs_once(small_run, places, tmp_path):
    arguments = [*LORA, *small_run, *places]
    processes = [
        Command([*arguments, f"seed={seed}"], tmp_path / f"output-{i}.txt") for i, seed in enumerate((0, 1, 1))
    ]
    codes = [process.end() for process in processes]
    outputs = [process.said() for process in processes]
    assert codes == [0, 0, 0], outputs
    assert "\r" not in "".join(outputs)  # plain lines where there is no terminal
    records = Store(tmp_path / "results").read_all()
    assert [(record.seed, record.status) for record in records] == [(0, "ok"), (1, "ok")]
    assert sum("already done" in output for output in outputs) == 1
    assert not list((tmp_path / "results/records").glob("superseded/*"))
    first, second = (load_file(tmp_path / "runs" / r.run_id / "adapter/adapter_model.safetensors") for r in records)
    assert any((first[name] != second[name]).any() for name in first)


def test_wait_false_leaves_a_cell_that_another_process_runs(command, small_run, places, tmp_path):
    spec = compose_spec([*LORA, *small_run, *places])
    began = time.monotonic()
    with Store(tmp_path / "results").claim(spec.run_id, wait=False):
        code, out, _ = command(*LORA, *small_run, *places, "wait=false")
    assert code == 0 and "another process runs this cell" in out and time.monotonic() - began < 60
    assert not Store(tmp_path / "results").read_all()


@pytest.mark.parametrize("fact", [{"layer": "many"}, {"layer": object()}])
def test_a_fact_of_a_wrong_type_leaves_a_failed_record_with_the_reason(
    fact, command, small_run, places, monkeypatch, tmp_path
):
    monkeypatch.setattr(Adapter, "ranks", lambda adapter: fact)
    code, _, err = command(*LORA, *small_run, *places)
    (record,) = Store(tmp_path / "results").read_all()
    assert code == 1 and record.status == "failed" and "ranks.layer" in record.error, err
    assert record.metrics_before and not record.ranks  # what was known before is kept


def test_a_fact_that_is_wrong_only_in_the_record_fails_the_run_too(command, small_run, places, monkeypatch, tmp_path):
    def spoil(run, bundle, adapter, folder):
        run.outcome.metrics["spoilt"] = "a text"  # inside a dictionary: no assignment notices it

    monkeypatch.setattr(pipeline, "_export", spoil)
    code, *_ = command(*LORA, *small_run, *places)
    (record,) = Store(tmp_path / "results").read_all()
    assert code == 1 and record.status == "failed" and "metrics.spoilt" in record.error
    assert record.curve and record.ranks and not record.metrics
