"""A run measures what it forgets and keeps snapshots on the way; probes read both, and say what they miss."""

from __future__ import annotations

import shutil

import pytest

from eva_bench.probes import __main__ as probes
from eva_bench.probes.result import ProbeResult
from eva_bench.records.store import Store
from eva_bench.run import train
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_spec

SHORT = ["scale=pocket", "train.steps=9", "train.epochs=null", "eval.limit=20", "tracking.mode=off", "threads=1",
         "train.snapshots=3", "eval.every_epoch=false"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(folder):
    """Ids of three short runs: two seeds of PiSSA, which stores twice its rank, and full fine-tuning."""
    ids = []
    for method, seed in (("pissa", 0), ("pissa", 1), ("full", 0)):
        given = [f"method={method}", f"seed={seed}", "task=vtab1k/dtd", *SHORT]
        spec = compose_spec([*given, f"results_dir={folder / 'results'}", f"runs_dir={folder / 'runs'}"])
        assert run_cell(spec) == 0
        ids.append(spec.run_id)
    return ids


def probe(folder, *arguments) -> int:
    return probes.main([*arguments, f"results_dir={folder / 'results'}", f"runs_dir={folder / 'runs'}"])


def results(folder, name) -> dict[str, ProbeResult]:
    files = (folder / "results" / "probes" / name).glob("*.json")
    return {file.stem: ProbeResult.model_validate_json(file.read_text()) for file in files}


def test_forgetting_stands_in_the_record_before_and_after(runs, folder):
    records = {record.run_id: record for record in Store(folder / "results").read_all()}
    for name in ("forgetting/loss", "forgetting/accuracy"):
        before = {records[run].metrics_before[name] for run in runs}
        assert len(before) == 1  # the same model and rows for all
        assert all(records[run].metrics[name] != before.copy().pop() for run in runs)
    assert records[runs[0]].costs["forgetting"].seconds >= 0


def test_snapshots_grow_into_the_result(runs, folder, capsys):
    assert train.snapshot_steps(100, 3) == {1, 10, 100} and train.snapshot_steps(9, 3) == {1, 3, 9}
    assert train.snapshot_steps(9, 0) == set() and train.snapshot_steps(9, 1) == {9}
    assert train.snapshot_steps(2, 8) == {1, 2}
    for run in (runs[0], runs[2]):
        assert probe(folder, "geometry", f"run={run}", "snapshots=true") == 0
        assert probe(folder, "geometry", f"run={run}") == 0
        found = results(folder, "geometry")
        sizes = [found[f"{run}{end}"].summary["mean_frobenius"] for end in ("-step1", "-step3", "-step9", "")]
        assert 0 < sizes[0] < sizes[1] < sizes[2] and sizes[3] == pytest.approx(sizes[2], rel=1e-5)
        assert found[run].task == "vtab1k/dtd"


def test_pairs_of_runs_and_all_runs_of_a_method(runs, folder):
    assert probe(folder, "connectivity", f"run={','.join(runs)}", "points=3", "permute=true") == 0
    (found,) = results(folder, "connectivity").values()
    assert found.subjects == runs and len(found.layers["straight"]["loss"]) == 3
    assert found.summary["straight_barrier"] >= 0
    assert found.layers["permuted"] == found.layers["straight"]  # fine-tunes of one base: nothing to permute
    assert probe(folder, "intruders", "method=pissa", "mitigation=true") == 0
    intruders = results(folder, "intruders")
    assert sorted(intruders) == sorted(runs[:2])
    record = next(r for r in Store(folder / "results").read_all() if r.run_id == runs[0])
    kept = intruders[runs[0]].summary["lambda=1 forgetting/loss"]
    assert kept == pytest.approx(record.metrics["forgetting/loss"], rel=1e-4)


def test_curvature_and_gradients_of_a_run(runs, folder):
    for name in ("curvature", "low_rank", "variation"):
        assert probe(folder, name, f"run={runs[0]}") == 0
    assert results(folder, "curvature")[runs[0]].summary["largest"] > 0
    ranks = results(folder, "low_rank")[runs[0]].summary
    assert 1 <= ranks["mean_gradient_after_stable_rank"] <= 96


def test_a_run_whose_adapter_is_gone(runs, folder, tmp_path, capsys):
    shutil.copytree(folder / "runs" / runs[0], tmp_path / runs[0])
    shutil.rmtree(tmp_path / runs[0] / "adapter")
    assert probes.main(["intruders", f"run={runs[0]}", f"runs_dir={tmp_path}", f"results_dir={tmp_path}"]) == 2
    assert f"The adapter of run {runs[0]} is gone" in capsys.readouterr().err
    shutil.rmtree(tmp_path / runs[0] / "snapshots")
    given = ["intruders", f"run={runs[0]}", "snapshots=true", f"runs_dir={tmp_path}", f"results_dir={tmp_path}"]
    assert probes.main(given) == 2
    assert "has no snapshots" in capsys.readouterr().err


def test_a_study_of_all_runs_continues_and_its_answers_wait_for_seeds(runs, folder, capsys):
    file = folder / "mine.yaml"
    file.write_text("{scale: pocket, tasks: [vtab1k/dtd], methods: [full, pissa], seeds: 5, probes: {variation: []}}")
    given = [f"file={file}", "private=true"]
    assert probe(folder, "study", *given, "force=true") == 0
    assert set(runs) <= set(results(folder, "variation"))
    capsys.readouterr()
    assert probe(folder, "study", *given) == 0
    assert "3 runs, 3 results, 0 of them to do" in capsys.readouterr().out
    assert probes.main(["answers", *given, f"results_dir={folder / 'results'}"]) == 0
    page = (folder / "results" / "probes" / "answers.md").read_text()
    assert page.count("Not answered yet.") == 10 and "| pissa |" in page
    assert probe(folder, "study", f"file={file}") == 2
    assert "No finished run" in capsys.readouterr().err
