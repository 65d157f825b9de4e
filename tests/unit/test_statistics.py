"""Statistics against values computed by hand, or by another function."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from eva_bench.reporting import statistics
from eva_bench.reporting.archive import Archive
from eva_bench.reporting.tables.selection import select
from eva_bench.reporting.tables.spec import TableSpec
from eva_bench.reporting.tables.summary import build_summary
from tests.records import record


def test_interquartile_mean_by_hand():
    assert statistics.interquartile_mean([1, 2, 3, 4, 5, 6, 7, 100]) == 4.5  # two of eight go at each end: 3, 4, 5, 6
    assert statistics.interquartile_mean([1, 2, 9]) == 4.0  # a quarter of three is none


def test_the_mean_weighs_tasks_alike_whatever_their_number_of_seeds():
    assert statistics.task_mean({"a": {0: 0.0, 1: 1.0, 2: 0.5}, "b": {0: 1.0}}) == 0.75


def test_the_interval_of_two_seeds_is_what_can_be_drawn_from_them():
    # Means of two draws from (0, 1): 0, 1/2, 1 with chances 1/4, 1/2, 1/4. The ends of a 95 % interval are 0 and 1.
    assert statistics.mean_interval({"a": {0: 0.0, 1: 1.0}}) == (0.0, 1.0)
    # With a second task that does not vary, half of it. A third of the tasks' seeds are never mixed with the others'.
    assert statistics.mean_interval({"a": {0: 0.0, 1: 1.0}, "b": {0: 5.0, 1: 5.0}}) == (2.5, 3.0)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        draws = generator.normal(0.5, 0.1, (4, 12))
        low, high = statistics.mean_interval({str(i): dict(enumerate(row)) for i, row in enumerate(draws)})
        hits += low <= 0.5 <= high
    assert 51 <= hits <= 60  # 57 expected; a percentile interval of few seeds is a little short


def test_an_interval_needs_two_seeds_of_every_task_and_is_the_same_every_time():
    assert (
        statistics.mean_interval({"a": {0: 1.0}, "b": {0: 1.0, 1: 2.0}}) is None
        and statistics.mean_interval({}) is None
    )
    scores = {"a": {0: 0.1, 1: 0.4, 2: 0.3}, "b": {0: 0.6, 1: 0.7}}
    assert statistics.iqm_interval(scores) == statistics.iqm_interval(scores)


def test_differences_pair_what_has_task_and_seed_in_common():
    ours = {"a": {0: 3.0, 1: 5.0}, "b": {0: 1.0}, "c": {0: 1.0}}
    theirs = {"a": {1: 4.0, 2: 9.0}, "b": {0: 0.0}}
    assert statistics.differences(ours, theirs) == {"a": {1: 1.0}, "b": {0: 1.0}}


def test_paired_p_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.4641 with 2 degrees of freedom: p = 0.0742
    assert statistics.paired_p({"a": {0: 1.0, 1: 2.0, 2: 3.0}}) == pytest.approx(0.07418, abs=1e-5)
    x = np.random.default_rng(2).normal(0.1, 1, 24)
    assert statistics.paired_p({"a": dict(enumerate(x[:9])), "b": dict(enumerate(x[9:]))}) == pytest.approx(
        stats.ttest_1samp(x, 0).pvalue
    )
    assert statistics.paired_p({"a": {0: 0.0, 1: 0.0}}) == 1.0 and statistics.paired_p({"a": {0: 0.1, 1: 0.1}}) == 0.0
    assert statistics.paired_p({"a": {0: 1.0}}) is None


def test_holm_by_hand():
    assert statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert statistics.holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_probability_of_improvement_by_hand_and_against_mann_whitney():
    # task a: of the four pairs ours wins 2, ties 1: 2.5 / 4; task b: 1
    ours, theirs = {"a": {0: 1.0, 1: 3.0}, "b": {0: 9.0}}, {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0}}
    assert statistics.probability_of_improvement(ours, theirs) == (0.625 + 1) / 2
    x, y = np.random.default_rng(1).normal(size=(2, 20)).round(1)
    expected = stats.mannwhitneyu(x, y).statistic / 400
    assert statistics.probability_of_improvement({"a": dict(enumerate(x))}, {"a": dict(enumerate(y))}) == pytest.approx(
        expected
    )
    assert statistics.probability_of_improvement({"a": {0: 1.0}}, {"b": {0: 1.0}}) is None


def test_tied_with_best_needs_a_test_and_corrects_for_the_number_of_rows():
    best = {"t": {0: 0.9, 1: 0.8, 2: 0.85, 3: 0.9}}
    near = {"t": {0: 0.8, 1: 0.9, 2: 0.8, 3: 0.95}}
    far = {"t": {seed: score - 0.3 - seed / 100 for seed, score in best["t"].items()}}
    assert statistics.tied_with_best({"best": best, "near": near, "far": far, "single": {"t": {0: 0.9}}}, "best") == {
        "near"
    }


def test_summary_lines_count_collapses_and_compare_with_lora_on_the_same_seeds():
    spec = TableSpec.model_validate({
        "name": "x", "title": "X", "methods": ["lora", "eva"], "statistics": True,
        "columns": [
            {"task": "gsm8k", "metric": "exact_match_strict", "title": "GSM8K"},
            {"task": "gsm8k", "metric": "exact_match_flexible", "title": "again"},
        ],
    })  # fmt: skip
    records = [
        record("lora", 0, 0.5),
        record("lora", 1, 0.6),
        record("eva", 0, 0.6),
        record("eva", 1, 0.01),
        record("eva", 2, 0.7, status="failed"),
    ]
    built = build_summary(select(Archive(records), spec, "pocket", "pocket_language"), "pocket_language")
    eva = dict(zip(built.header[1:], [cell.text for cell in built.lines[1].cells], strict=True))
    assert eva["tasks"] == "1" and eva["runs"] == "2"  # the second column is another metric of the same answers
    assert eva["mean [95 %]"] == "30.5 [1.0, 60.0]" and eva["median"] == "30.5"
    assert eva["difference to LoRA [95 %]"] == "-24.5 [-59.0, +10.0]"  # +10 and -59
    assert eva["better than LoRA"] == "0.38"  # wins 0.6 > 0.5, ties 0.6 = 0.6: 1.5 of 4
    assert eva["collapsed"] == "2"  # one failed, one not above the untouched model's 2 %
