"""Reliability of tasks, against an analysis of variance and on simulated methods with a known share of noise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from eva_bench.reporting.statistics import NEAR, judge, reliability
from tests.conftest import ROOT


def test_it_is_one_less_the_inverse_of_f():
    scores = np.random.default_rng(0).normal([[0.5], [0.6], [0.8]], 0.05, (3, 4)).tolist()
    share, deviation = reliability(scores)
    assert share == pytest.approx(1 - 1 / stats.f_oneway(*scores).statistic)
    assert deviation == pytest.approx(np.sqrt(np.mean([np.var(found, ddof=1) for found in scores])))


def test_it_is_the_share_of_the_variance_that_methods_make():
    generator = np.random.default_rng(1)
    between, within, seeds = 0.04, 0.06, 3
    methods = generator.normal(0, between, (4000, 1))
    share, _ = reliability((methods + generator.normal(0, within, (4000, seeds))).tolist())
    assert share == pytest.approx(between**2 / (between**2 + within**2 / seeds), abs=0.03)


def test_methods_that_do_not_differ_more_than_their_seeds_have_none():
    assert reliability([[0.1, 0.9], [0.2, 0.8]])[0] == 0
    assert reliability([[1.0, 1.0], [1.0, 1.0]]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("means", "mark"),
    [([1 - NEAR, 1.0], "ceiling"), ([0.5, 1.0], None), ([0.2, 0.3 + NEAR / 2], "floor"), ([0.2, 0.4], None)],
)
def test_ceiling_and_floor(means, mark):
    assert judge([[mean, mean + 1e-3] for mean in means], floor=0.3, ceiling=1.0).mark == mark


def test_a_task_whose_methods_differ_by_noise_is_marked():
    assert judge([[0.5, 0.7], [0.6, 0.8]]).mark == "unreliable"


def test_the_committed_table_has_every_task_of_the_overall_table():
    rows = json.loads((ROOT / "results/bench/reliability.json").read_text())
    assert len(rows) == 47 and all(0 <= row["reliability"] <= 1 for row in rows)
