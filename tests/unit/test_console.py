"""The first and last lines of a run: what it is, and whether a repetition gave what is recorded."""

from __future__ import annotations

import re

import pytest

from eva_bench.cli import help_text
from eva_bench.run.console import comparison, introduction, summary
from eva_bench.system import paths
from eva_bench.system.progress import Bar
from tests.conftest import CONF
from tests.records import make_spec, record

SCALE = {"scale": {"name": "pocket", "title": "small stand-ins", "hint": "scale=lite"}}


def test_the_first_line_says_whose_model_and_data_these_are():
    ours = introduction(make_spec(SCALE | {"model": {"path": "pocket:language"}}))
    assert "scale=pocket (small stand-ins)" in ours and "Next: scale=lite." in ours and "model.path" not in ours
    own = introduction(make_spec(SCALE | {"data": {"root": "/data"}, "model": {"path": "/x/model"}}))
    control = introduction(make_spec(SCALE | {"model": {"path": "pocket:decision", "kind": "decision"}}))
    assert "stand-ins" in control and "Next" not in control  # no public model can be fetched for it
    assert "stand-ins" not in own and "Next" not in own and "(model.path)" in own and "(data.root)" in own


def test_an_experiment_of_ones_own_is_told_where_it_belongs():
    for changes, named in (
        ({"origins": {"command_line": ["method=lora", "task=gsm8k", "train.lr=1", "threads=1"]}}, "(train.lr)"),
        ({"identity": {"model": {"checkpoint": "model"}}}, "(model.path)"),
        ({"identity": {"eval_data": {"as_pinned": False}}}, "(data.root)"),
    ):
        said = introduction(make_spec(SCALE | changes))
        assert f"An experiment of your own {named}" in said and "results_dir=mine" in said
        assert "of your own" not in introduction(make_spec(SCALE | changes | {"where": {"results_dir": "mine"}}))
        assert "of your own" not in introduction(make_spec(SCALE | changes | {"stage": "tune"}))
    pinned = {"identity": {"eval_data": {"as_pinned": True}}, "data": {"root": "/data", "source": "hub"}}
    assert "of your own" not in introduction(make_spec(pinned | {"scale": {"name": "lite"}}))
    usual = {"origins": {"command_line": ["method=lora", "task=gsm8k", "seed=1", "threads=1", "force=true"]}}
    assert "of your own" not in introduction(make_spec(SCALE | usual | {"model": {"path": "pocket:language"}}))


def test_a_method_without_tuned_values_says_at_which_rate_it_runs(tmp_path, monkeypatch):
    spec = make_spec(SCALE | {"train": {"lr": 0.003}})
    monkeypatch.setattr(paths, "CONF", tmp_path)
    assert "tuned" not in introduction(spec)  # nothing is tuned here: the recipe is the rule
    (tmp_path / "tuned/pocket" / spec.task.family).mkdir(parents=True)
    said = introduction(spec)
    assert "no tuned values for this task: it runs at the recipe's train.lr=0.003" in said
    (suite,) = re.findall(r"suite=(\w+)", said)
    assert (CONF / "suite" / f"{suite}.yaml").is_file()
    for origins in ({"tuned": ["pocket/math/lora"]}, {"command_line": ["train.lr=1"]}):
        assert "tuned" not in introduction(make_spec(SCALE | {"origins": origins}))
    assert "tuned" not in introduction(make_spec(SCALE | {"stage": "tune"}))


def test_a_repetition_with_other_threads_says_so_with_the_digits_that_differ():
    known = record(metrics={"reference_loss": 0.0440001, "exact_match_strict": 0.5}, hardware={"threads": 1})
    again = record(metrics={"reference_loss": 0.0440002, "exact_match_strict": 0.5}, hardware={"threads": 2})
    said = comparison(known, again)
    assert "reference_loss 0.0440001 recorded, 0.0440002 now" in said.replace("00 recorded", " recorded").replace(
        "00 now", " now"
    )
    assert "differ in threads; threads=1 gives the record's digits" in said and "exact_match" not in said
    assert comparison(known, known).startswith("reproduced")


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ({"exact_match_strict": 0.507, "reference_loss": 1.009}, "agrees with the record up to rounding"),
        ({"exact_match_strict": 0.52, "reference_loss": 1.0}, "by more than rounding explains"),
        ({"exact_match_strict": 0.5, "reference_loss": 1.02}, "by more than rounding explains"),
        ({"exact_match_strict": 0.5}, "by more than rounding explains"),
    ],
)
def test_other_threads_explain_a_small_difference_and_no_other(now, verdict):
    known = record(metrics={"exact_match_strict": 0.5, "reference_loss": 1.0, "samples": 400}, hardware={"threads": 1})
    again = {"metrics": now | {"samples": 400}}
    assert verdict in comparison(known, record(**again, hardware={"threads": 2}))
    assert comparison(known, record(**again, hardware={"threads": 1})).startswith("not equal to the record: ")


def test_few_answers_differ_by_one_or_two():
    known = record(metrics={"success": 0.8, "samples": 30}, hardware={"threads": 1})
    said = comparison(known, record(metrics={"success": 0.8 + 2 / 30, "samples": 30}, hardware={"threads": 2}))
    assert said.startswith("agrees with the record")


@pytest.mark.parametrize(("kind", "word"), [("language", "tokens"), ("classifier", "texts"), ("vision", "images")])
def test_what_entered_the_loss_is_named_by_its_kind(kind, word, tmp_path):
    assert f"10 steps, 100 {word}" in summary(record(), make_spec({"model": {"kind": kind}}), tmp_path)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [({"packages": {"torch": "3"}}, "torch"), ({"hardware": {"gpu": "X"}}, "gpu"), ({"code": {"commit": "b"}}, "code"),
     ({}, "are the same")],
)  # fmt: skip
def test_what_differs_between_two_runs_is_named(changes, cause):
    said = comparison(record(metrics={"m": 0.5}), record(**({"metrics": {"m": 0.6}} | changes)))
    assert cause in said and "m 0.5 recorded, 0.6 now" in said


def test_of_the_best_epoch_only_the_primary_metric_is_shown(tmp_path):
    metrics = {"exact_match_strict": 0.5, "best/exact_match_strict": 0.6, "best/exact_match_flexible": 0.7}
    spec = make_spec()
    shown = summary(record(metrics=metrics), spec, tmp_path)
    assert "best/exact_match_strict" in shown and "best/exact_match_flexible" not in shown


def test_help_names_families_and_where_things_go():
    text = help_text()
    assert "families  glue, metaworld, vtab1k" in text
    for setting in ("results_dir=", "data.root=", "model.path=", "force=true"):
        assert setting in text


def test_in_a_pipe_there_is_a_line_at_the_start_and_one_after_ten_seconds(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("eva_bench.system.progress.time.monotonic", lambda: clock[0])
    bar = Bar("answers")
    for second in range(0, 131):
        clock[0] = float(second)
        bar(second, 100_000)
    assert [line.split(":")[1].split("/")[0] for line in capsys.readouterr().out.splitlines()] == [" 0", " 11", " 72"]


def test_in_a_pipe_no_line_is_printed_twice(capsys):
    bar = Bar("answers")
    for done in (0, 0, 0, 1, 2, 2):
        bar(done, 2)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "answers: 0/2",
        "answers: 1/2",
        "answers: 2/2",
    ]


def test_the_summary_keeps_long_names_apart_and_names_the_film(tmp_path):
    spec = make_spec({"where": {"runs_dir": str(tmp_path)}})
    found = record(metrics={"subject/Counting & Probability": 0.5})
    assert "film" not in summary(found, spec, tmp_path)
    film = tmp_path / found.run_id / "episode.gif"
    film.parent.mkdir()
    film.touch()
    said = summary(found, spec, tmp_path)
    assert "subject/Counting & Probability – -> 50.0 %" in said and f"film        {film}" in said
