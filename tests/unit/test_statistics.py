"""Per-task differences, ranks, wins and the bootstrap against values computed by hand, or by another function."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import scikit_posthocs
from scipy import stats

from eva_bench.reporting import statistics
from eva_bench.reporting.statistics import Score
from eva_bench.reporting.statistics.per_task import critical_value
from tests.unit.test_mixed_model import EFFECTS, LEVELS, from_logit, simulated


def test_dunnetts_own_example():
    """Blood counts of animals under two drugs (Dunnett, 1955, JASA 50, 1096), and scipy's answer to it."""
    samples = {
        "control": [7.40, 8.50, 7.20, 8.24, 9.84, 8.32],
        "a": [9.76, 8.80, 7.68, 9.36],
        "b": [12.80, 9.68, 12.16, 9.20, 10.55],
    }
    found = statistics.differences_to(samples, "control")
    interval = stats.dunnett(samples["a"], samples["b"], control=samples["control"], rng=1).confidence_interval()
    assert [found["a"].low, found["b"].low] == pytest.approx(list(interval.low), abs=0.01)
    assert [found["a"].high, found["b"].high] == pytest.approx(list(interval.high), abs=0.01)
    assert found["a"].low < 0 < found["a"].high and found["b"].low > 0  # as published: b differs, a does not


def test_critical_values_of_the_published_table():
    # Dunnett, Biometrics 20 (1964), 482: two-sided, 95 %: 3 treatments and 12 degrees of freedom 2.68; 1 and 4: t.
    assert critical_value((4, 4, 4), 4) == pytest.approx(2.68, abs=0.01)
    assert critical_value((3,), 3) == pytest.approx(stats.t.ppf(0.975, 4), abs=0.01)


def test_a_difference_needs_two_trainings_for_an_interval():
    found = statistics.differences_to({"a": [0.5, 0.6], "b": [0.9], "c": [0.5, 0.7]}, "a")
    assert found["b"].estimate == pytest.approx(0.35) and found["b"].low is None and found["c"].low is not None
    assert statistics.differences_to({"a": [0.5], "b": [0.9, 0.8]}, "a")["b"].low is None
    assert statistics.differences_to({"a": [0.5, 0.5], "b": [0.9, 0.9]}, "a")["b"].low is None  # nothing varies
    assert statistics.differences_to({"b": [0.9, 0.8]}, "a") == {}


MEANS = {
    "t1": {"a": 0.9, "b": 0.8, "c": 0.7},
    "t2": {"a": 0.5, "b": 0.5, "c": 0.9},
    "t3": {"a": 0.4, "b": 0.3, "c": 0.1},
}


def test_mean_ranks_and_wins_by_hand():
    # ranks 1 2 3; 2.5 2.5 1; 1 2 3
    assert statistics.mean_ranks(MEANS) == pytest.approx({"a": 1.5, "b": 6.5 / 3, "c": 7 / 3})
    assert statistics.wins(MEANS, "a", "b") == pytest.approx(2.5 / 3) and statistics.wins(
        MEANS, "c", "a"
    ) == pytest.approx(1 / 3)
    assert statistics.wins(MEANS, "a", "z") is None and statistics.mean_ranks({}) == {}
    assert set(statistics.mean_ranks(MEANS | {"t4": {"a": 1.0, "b": 0.0}})) == {"a", "b"}  # c lacks a block


def test_the_critical_difference_is_that_of_the_paper_and_of_another_library():
    # Demšar (2006), table 5: q = 2.343 for three methods, 2.850 for six.
    assert statistics.critical_difference(3, 10) == pytest.approx(2.343 * (3 * 4 / 60) ** 0.5, abs=1e-3)
    assert statistics.critical_difference(6, 24) == pytest.approx(2.850 * (6 * 7 / 144) ** 0.5, abs=1e-3)
    data = pandas.DataFrame(np.random.default_rng(0).normal([0, 0.4, 0.8, 1.6], size=(12, 4)))
    p = scikit_posthocs.posthoc_nemenyi_friedman(data).to_numpy()
    ranks = (-data).rank(axis=1).mean().to_numpy()
    apart = abs(ranks[:, None] - ranks) > statistics.critical_difference(4, 12)
    assert (apart == (p < 0.05)).all() and apart.any() and not apart.all()


def test_tasks_of_one_training_make_one_block():
    scores = [Score(m, "f", t, f"{m}{s}", v) for m, v in (("a", 0.4), ("b", 0.6)) for t in ("x", "y") for s in range(2)]
    scores += [Score(m, "f", "z", f"{m}{s}z", 0.5) for m in "ab" for s in range(2)]
    assert statistics.block_means(scores) == {"x": {"a": 0.4, "b": 0.6}, "z": {"a": 0.5, "b": 0.5}}


def test_the_headline_mean_weighs_families_alike_and_leaves_out_who_lacks_a_task():
    scores = [Score("a", "f", t, "1", 0.2) for t in "wxyz"]
    scores += [
        Score("a", "g", "v", "1", 0.8),
        Score("b", "g", "v", "1", 0.9),
    ]
    assert statistics.balanced_means([s for s in scores if s.method == "a"]) == {"a": 0.5}
    assert statistics.balanced_means(scores) == {"a": 0.5}


def families(scores: list[Score]) -> dict[str, list[Score]]:
    return {name: [s for s in scores if s.family == name] for name in sorted({s.family for s in scores})}


def test_the_bootstrap_of_one_task_has_the_standard_error_of_two_means():
    values = {"a": [0.1, 0.2, 0.6], "b": [0.5, 0.9, 0.7]}
    scores = [Score(m, "f", "t", f"{m}{i}", v) for m, found in values.items() for i, v in enumerate(found)]
    low, high = statistics.bootstrap_interval({"f": scores}, "b", "a")
    half = stats.t.ppf(0.975, 4) * np.sqrt(np.var(values["a"], ddof=1) / 3 + np.var(values["b"], ddof=1) / 3)
    assert (low + high) / 2 == pytest.approx(0.4) and (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert statistics.bootstrap_interval({"f": scores}, "b", "a") == (low, high)


def test_the_bootstrap_covers_at_least_as_often_as_it_says():
    """Tasks and trainings are both resampled, so that it is wider than the model: a cautious check."""
    truth = np.mean([np.mean(from_logit(v + EFFECTS["b"]) - from_logit(v)) for v in LEVELS.values()])
    generator, hits = np.random.default_rng(1), []
    for _ in range(150):
        low, high = statistics.bootstrap_interval(families(simulated(generator, 3)), "b", "a")
        hits.append(low <= truth <= high)
    assert np.mean(hits) >= 0.93


def test_the_bootstrap_needs_two_trainings_of_every_task():
    scores = [Score(m, "f", "t", f"{m}{i}", 0.5) for m, n in (("a", 2), ("b", 1)) for i in range(n)]
    assert (
        statistics.bootstrap_interval({"f": scores}, "b", "a") is None
        and statistics.bootstrap_interval({}, "b", "a") is None
    )
