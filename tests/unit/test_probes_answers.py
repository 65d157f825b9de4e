"""Answers from made-up trainings whose differences and correlations are known."""

from __future__ import annotations

import math
import re

import pytest

from eva_bench.probes import answers, comparisons, questions, study
from eva_bench.probes.comparisons import Training
from eva_bench.probes.measure import PROBES
from eva_bench.probes.result import ProbeResult
from eva_bench.records.store import Store
from eva_bench.settings.spec import PROTOCOL
from eva_bench.system.errors import UserError
from eva_bench.system.paths import ROOT, choices
from tests.records import record

RESULTS = ROOT / "results"
TASKS, SEEDS = ("one", "two"), range(5)
NOISE = (0.0, 0.3, -0.2, 0.1, -0.2)  # of the seeds; its mean is 0


def trainings(**forgetting: float) -> list[Training]:
    """Five seeds on two tasks for each method: forgetting is 2 percent a point of score, and the method's own."""
    found = []
    for task in TASKS:
        for method, own in forgetting.items():
            for seed in SEEDS:
                score = 50 + 3 * seed + (10 if method == "full" else 0) + (5 if task == "two" else 0)
                lost = 2 * score + own + NOISE[seed]
                more = {"intruders/intruders": 100 + lost, "variation/mean_vectors": own / 100 + NOISE[seed] / 1000}
                found.append(Training(task, method, seed, {"score": score, "forgetting": lost} | more))
    return found


def page(found: list[Training], pairs=([], [])) -> str:
    return answers.page(found, pairs, {}, study.read_study())


def test_forgetting_is_compared_at_equal_score_and_as_it_is():
    found = trainings(full=0.0, lora=-4.0)
    raw = comparisons.difference(found, "forgetting", "lora", "full", 5)
    assert raw.estimate == pytest.approx(-4 - 2 * 10) and raw.sign == -1
    equal = comparisons.bootstrap(found, lambda some: comparisons.at_equal_score(some, "lora", "full"), 5)
    assert equal.estimate == pytest.approx(-4, abs=0.5) and equal.low <= equal.estimate <= equal.high < 0


def test_a_correlation_is_that_within_tasks():
    found = trainings(full=0.0, lora=-4.0)
    assert comparisons.rank_correlation(found, "intruders/intruders", "forgetting") == pytest.approx(1)
    assert math.isnan(comparisons.rank_correlation(found, "score", "nothing"))
    own = [
        Training("one", m, seed, {"x": far + seed, "y": far - seed})
        for m, far in (("a", 0), ("b", 9))
        for seed in SEEDS
    ]
    assert comparisons.rank_correlation(own, "x", "y") > 0.2  # methods lie apart in both
    assert comparisons.rank_correlation(own, "x", "y", "method") == pytest.approx(-1)  # trainings of one the other way


def test_pairs_and_models_have_their_tables():
    asked = study.read_study()
    values = {"straight_barrier": 0.1, "permuted_barrier": 0.2, "straight_half_way": 0.5, "merged_loss": 0.6}
    of_seeds = [Training(task, "lora", 0, values) for task in TASKS]
    apart = [values | {"factors_half_way": 0.7 + noise} for noise in NOISE]
    of_methods = [Training(task, "eva", seed, apart[seed]) for task in TASKS for seed in SEEDS]
    _, _, first, _, second = questions.merging(of_seeds, of_methods, asked)
    assert "| lora | 0.1 | 0.2 | – | 0.5 | – | 0.6 |" in first
    assert "| eva | 0.1 [0.1, 0.1] | 0.2 [0.2, 0.2] | – | 0.5 [0.5, 0.5] | 0.7 [0.437, 0.963] |" in second
    summary = {"straight_barrier": 2.0, "straight_alignment": 0.01, "permuted_barrier": 1.0, "permuted_alignment": 0.25}
    facts = {"probe": "p", "sha256": ["1"], "settings": {}, "seconds": 1}
    table = questions.matching([ProbeResult(subjects=["a", "b"], summary=summary, **facts)])[2]
    assert "| a | 2 | straight | 2 | 0.01 | – |\n| a | 2 | permuted | 1 | 0.25 | – |" in table
    means = {"mean_share": 0.5, "mean_energy_rank": 30.0, "mean_full_rank": 96.0, "mean_stable_rank": 7.0}
    ranks = ProbeResult(subjects=["m"], summary={"layers": 12, "low_rank_layers": 5} | means, **facts)
    assert "| m | 12 | 5 | 0.5 | 30 | 96 | 7 |" in questions.profiles([ranks])[2]
    empty = (questions.merging([], [], asked), questions.matching([]), questions.profiles([]))
    assert [found[1] for found in empty] == [questions.WAITING] * 3


def test_curvature_stands_beside_the_rate_of_each_task():
    methods, tasks = ("lora", "eva", "pissa", "svfit"), study.read_study().tasks
    found = [
        Training(task, method, seed, {"curvature/largest": 10.0 * (i + 1) + NOISE[seed], "rate": 0.1 / (i + 1)})
        for task in tasks for i, method in enumerate(methods) for seed in SEEDS
    ]  # fmt: skip
    text = page(found)
    assert "mean over tasks: -1. Its interval" in text and "| eva | 20 [19.7, 20.3] | 0.05 | 20" in text


def test_the_study_compares_seeds_of_a_method_and_methods_of_a_seed():
    runs = [record(method, seed, 0.5, task="gsm8k") for method in ("lora", "eva") for seed in (1, 0)]
    name = {(run.method, run.spec.seed): run.run_id for run in runs}
    groups = study.groups_of("connectivity", runs)
    assert [name["lora", 0], name["lora", 1]] in groups and [name["eva", 0], name["eva", 1]] in groups
    assert (
        [name["lora", 0], name["eva", 0]] in groups and [name["lora", 1], name["eva", 1]] in groups and len(groups) == 4
    )
    assert study.groups_of("intruders", runs) == [[run.run_id] for run in runs]
    own = record("eva", 0, 0.7, task="gsm8k")  # the same seed with settings of somebody's own
    assert {own.run_id, name["eva", 0]} <= set(study.groups_of("connectivity", [*runs, own])[1])
    assert [name["lora", 0], own.run_id] in study.groups_of("connectivity", [*runs, own])


def test_the_committed_page_is_what_records_and_results_give():
    file = RESULTS / "probes" / "answers.md"
    assert file.read_text() == answers.page_of(study.Chosen(results_dir=str(RESULTS)))


def test_fewer_seeds_than_wanted_are_no_answer():
    few = [training for training in trainings(full=0.0, lora=-4.0) if training.seed < 4]
    assert comparisons.difference(few, "forgetting", "lora", "full", 5) is None
    assert comparisons.bootstrap(few, lambda _: 1.0, 5) is None
    assert page(few).count("Not answered yet.") == 10


def test_a_seed_without_all_tasks_does_not_count():
    found = [t for t in trainings(lora=0.0) if (t.task, t.seed) != ("two", 3)]
    assert sorted(comparisons.by_seed(found, "lora", "score")) == [0, 1, 2, 4]


def test_the_page_answers_every_question():
    found = trainings(full=0.0, lora=-4.0, pissa=8.0)
    for training in found:
        lost = {"0": (2.0, 0.5), "0.25": (1.8, 0.6), "0.5": (1.5, 0.7), "0.75": (1.2, 0.9), "1": (1.0, 1.0)}
        for factor, (loss, forgotten) in lost.items():
            names = f"intruders/lambda={factor} loss", f"intruders/lambda={factor} forgetting/loss"
            training.values.update(zip(names, (3 * loss, 5 * forgotten), strict=True))
    text = page(found)
    assert "Less than full fine-tuning: -4" in text
    assert (
        "over the trainings of each task: 1 [1, 1]; over those of each task and method, where the number varies: 1 [1"
        in text
    )
    log = {value: f"{math.log(value):.3g}" for value in (2.0, 1.5, 0.5, 0.7)}
    assert f"| lora | {log[2.0]} [{log[2.0]}, {log[2.0]}] | {log[1.5]} [" in text
    assert f"exp({log[2.0]} [{log[2.0]}, {log[2.0]}]) times as large, that on pretraining data exp({log[0.5]} [" in text
    assert "| milora |" not in text  # no run of it is there
    assert "\n\nlora; the next, full, moves them by 0.04 [0.04, 0.04] more, significantly." in text


def test_the_study_names_what_there_is(tmp_path):
    asked = study.read_study()
    assert set(asked.methods) <= set(choices("method")) and set(asked.tasks) <= set(choices("task"))
    assert set(asked.probes) <= set(PROBES)
    (tmp_path / "mine.yaml").write_text("{scale: pocket, tasks: [], methods: [], seeds: 1, probes: {intruder: []}}")
    with pytest.raises(UserError, match="unknown probe 'intruder'"):
        study.read_study(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("{scale: pocket}")
    with pytest.raises(UserError, match="is not a study: tasks"):
        study.read_study(tmp_path / "mine.yaml")


def test_of_a_run_that_was_tuned_again_only_the_last_one_counts(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("{scale: pocket, tasks: [gsm8k], methods: [lora], seeds: 5, probes: {}}")
    store = Store(tmp_path)
    for day, seed, score in (("03", 0, 0.7), ("02", 0, 0.5), ("02", 1, 0.6)):
        store.write(record("lora", seed, score, finished=f"2026-01-{day}T00:00:00+00:00", spec={"protocol": PROTOCOL}))
    found = study.Chosen(results_dir=str(tmp_path), file=str(file)).runs()
    assert sorted((run.spec.seed, run.metrics["exact_match_strict"]) for run in found) == [(0, 0.7), (1, 0.6)]


def test_of_a_task_with_more_seeds_the_first_ones_count(tmp_path):
    store = Store(tmp_path)
    for seed in (3, 1, 0, 2):
        store.write(record("lora", seed, 0.5, spec={"protocol": PROTOCOL}))
    file = tmp_path / "study.yaml"
    file.write_text("{scale: pocket, tasks: [gsm8k], methods: [lora], seeds: 2, probes: {}}")
    found = study.Chosen(results_dir=str(tmp_path), file=str(file)).runs()
    assert sorted(run.spec.seed for run in found) == [0, 1]


def test_every_interval_of_the_documentation_is_one_of_the_page_or_of_a_claim():
    text = (ROOT / "docs" / "probes.md").read_text()
    quoted = re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", text[text.index("## Answers") :])
    known = (RESULTS / "probes" / "answers.md").read_text() + (ROOT / "docs" / "claims.md").read_text()
    assert len(quoted) > 8 and [interval for interval in quoted if interval not in known] == []
