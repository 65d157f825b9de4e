"""The mixed model against a textbook, against statsmodels, and against simulated data whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from eva_bench.reporting.statistics import Model, Score
from eva_bench.reporting.statistics.reml import fit
from eva_bench.reporting.statistics.scores import from_logit, to_logit

# Productivity of six workers on three machines, three times each: Pinheiro and Bates, Mixed-Effects Models in S and
# S-PLUS (2000), section 1.3. Rows: machines A, B, C; in each, workers 1 to 6.
MACHINES = {
    "A": [
        (52.0, 52.8, 53.1),
        (51.8, 52.8, 53.1),
        (60.0, 60.2, 58.4),
        (51.1, 52.3, 50.3),
        (50.9, 51.8, 51.4),
        (46.4, 44.8, 49.2),
    ],
    "B": [
        (62.1, 62.6, 64.0),
        (59.7, 60.0, 59.0),
        (68.6, 65.8, 69.7),
        (63.2, 62.8, 62.2),
        (64.8, 65.0, 65.4),
        (43.7, 44.2, 43.0),
    ],
    "C": [
        (67.5, 67.2, 66.9),
        (61.5, 61.7, 62.3),
        (70.8, 70.6, 71.0),
        (64.1, 66.2, 64.0),
        (72.1, 72.0, 71.1),
        (62.0, 61.4, 60.5),
    ],
}


def test_a_published_example():
    # On the logit scale the model sees (productivity - 58) / 10: machines are methods, workers are tasks.
    scores = [
        Score(machine, "f", f"worker {w}", f"{machine}{w}{i}", float(from_logit((value - 58) / 10)))
        for machine, workers in MACHINES.items()
        for w, values in enumerate(workers)
        for i, value in enumerate(values)
    ]
    found = fit(scores)
    # The book's fit: machine B 7.967 and C 13.917 above A with standard error 2.177; deviations 3.7295 and 0.9616.
    assert 10 * found.effects == pytest.approx([0, 7.967, 13.917], abs=5e-4)
    assert 10 * np.sqrt(np.diag(found.covariance)) == pytest.approx([0, 2.177, 2.177], abs=5e-4)
    deviations = {name: 10 * variance**0.5 for name, variance in found.variances.items()}
    assert deviations == pytest.approx({"method x task": 3.7295, "rest": 0.9616}, abs=5e-4)
    # Balanced: the difference has the 2 x 5 degrees of freedom of machine x worker, as in an analysis of variance.
    variance, gradient = found.covariance[1, 1], found.slopes[:, 1, 1]
    assert 2 * variance**2 / (gradient @ found.uncertainty @ gradient) == pytest.approx(10, rel=1e-4)


def test_the_fit_is_that_of_statsmodels_for_unbalanced_data_of_trainings_with_several_scores():
    generator = np.random.default_rng(5)
    rows = []
    for method, seeds in {"a": 4, "b": 3, "c": 5}.items():
        at_task = generator.normal(0, 0.5, 6)
        for seed in range(seeds):
            training = generator.normal(0, 0.4)
            for task in range(6 - (seed == 2)):
                y = task / 3 - 1 + at_task[task] + training + generator.normal(0, 0.3)
                rows.append((method, str(task), f"{method}{seed}", y))
    data = pandas.DataFrame(rows, columns=["method", "task", "training", "y"])
    ours = fit([Score(m, "f", t, g, float(from_logit(y))) for m, t, g, y in rows])
    terms = {"task": "0 + C(task)", "training": "0 + C(training)"}
    model = MixedLM.from_formula("y ~ 0 + C(task) + C(method)", data, groups="method", vc_formula=terms, re_formula="0")
    theirs = model.fit(reml=True)
    assert ours.effects[1:] == pytest.approx(theirs.fe_params[-2:].to_numpy(), abs=2e-4)
    assert np.sqrt(np.diag(ours.covariance))[1:] == pytest.approx(theirs.bse_fe[-2:].to_numpy(), rel=2e-3)
    variances = dict(zip(model.exog_vc.names, theirs.vcomp, strict=True))
    expected = {"method x task": variances["task"], "training": variances["training"], "rest": theirs.scale}
    assert ours.variances == pytest.approx(expected, rel=5e-3)


def test_what_cannot_be_fitted_is_none():
    assert fit([Score(m, "f", t, f"{m}{t}", 0.5 + len(t) / 10) for m in "ab" for t in ("x", "yy")]) is None  # one seed
    assert fit([Score("a", "f", "x", str(seed), seed / 10) for seed in range(3)]) is None  # one method
    assert fit([Score(m, "f", "x", f"{m}{seed}", 0.5) for m in "ab" for seed in range(3)]) is None  # no spread


def test_scores_of_0_and_1_are_finite_on_the_logit_scale_and_come_back():
    values = np.array([0, 0.01, 0.5, 1])
    assert np.isfinite(to_logit(values)).all() and from_logit(to_logit(values)) == pytest.approx(values)
    assert to_logit(np.array([-0.2])) == to_logit(np.array([0.0]))  # a negative correlation is no better than none


EFFECTS = {"a": 0.0, "b": 0.4, "c": 0.0, "d": -0.4}  # on the logit scale
LEVELS = {"own": np.linspace(-0.5, 1.5, 6), "shared": np.linspace(-0.5, 1.5, 4)}


def simulated(generator: np.random.Generator, seeds: int) -> list[Score]:
    """Four methods; a family with a training per task, and one whose trainings are tested on all four of its tasks."""
    scores = []
    for family, levels in LEVELS.items():
        shared, tasks = family == "shared", len(levels)
        for method, effect in EFFECTS.items():
            at_task = generator.normal(0, 0.25, tasks)
            training = generator.normal(0, 0.4, (seeds, 1 if shared else tasks))
            rest = generator.normal(0, 0.2, (seeds, tasks)) if shared else 0
            values = from_logit(levels + effect + at_task + training + rest)
            scores += [
                Score(method, family, f"{family}{task}", f"{method}{seed}{'' if shared else task}", float(value))
                for (seed, task), value in np.ndenumerate(values)
            ]
    return scores


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_the_truth_in_95_of_100_cases(seeds):
    """Scores of one training have a correlation of 0.8. 1,500 intervals: chance moves their share by 0.6 points."""
    truth = {
        method: np.mean([np.mean(from_logit(levels + effect) - from_logit(levels)) for levels in LEVELS.values()])
        for method, effect in EFFECTS.items()
    }
    generator = np.random.default_rng(seeds)
    hits = []
    for _ in range(500):
        model = Model(simulated(generator, seeds))
        for method in "bcd":
            found = model.difference(method, "a")
            hits.append(found.low <= truth[method] <= found.high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_scores_of_one_training_taken_for_independent_would_cover_far_too_little():
    """The fault that the model is there to avoid: the same simulation, each score under a training of its own."""
    generator, hits = np.random.default_rng(0), []
    for _ in range(300):
        scores = [score for score in simulated(generator, 3) if score.family == "shared"]
        split = [Score(s.method, s.family, s.task, s.training + s.task, s.value) for s in scores]
        found = Model(split).difference("c", "a")
        hits.append(found.low <= 0 <= found.high)
    assert np.mean(hits) < 0.85


def family(name: str, methods: dict[str, list[float]], task: str = "t") -> list[Score]:
    return [Score(m, name, task, f"{m}{i}", v) for m, values in methods.items() for i, v in enumerate(values)]


def test_one_task_gives_the_pooled_t_interval():
    """Near 0.5 the logit scale is straight: estimate, interval and degrees of freedom are those of a t test by hand."""
    values = {"a": [0.500, 0.502, 0.504], "b": [0.509, 0.511, 0.513], "c": [0.499, 0.500, 0.501]}
    found = Model(family("f", values)).difference("b", "a")
    pooled = np.sqrt((2 * 0.002**2 + 2 * 0.002**2 + 2 * 0.001**2) / 6)
    half = stats.t.ppf(0.975, 6) * pooled * np.sqrt(2 / 3)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.009, 0.009 - half, 0.009 + half), rel=2e-3)


def test_verdicts_follow_from_the_printed_interval():
    def verdict(spread: float, gap: float):
        values = {m: [0.5 + s * spread + gap * (m == "b") for s in (-1, 0, 1)] for m in "ab"}
        return Model(family("f", values)).difference("b", "a")

    assert verdict(0.002, 0.05).verdict == "different"
    assert verdict(0.002, 0.001).verdict == "equivalent"
    small = verdict(0.002, 0.01)  # beyond chance, but too small to matter
    assert small.low > 0 and small.high < 0.02 and small.verdict == "equivalent"
    wide = verdict(0.02, 0.03)
    assert wide.verdict == "undecided" and wide.low < 0 < wide.high
    assert wide.seeds and wide.seeds > 3 and verdict(0.002, 0.05).seeds is None
    # With that many seeds the same spread does decide.
    values = {m: list(np.resize([0.48, 0.5, 0.52], wide.seeds) + 0.03 * (m == "b")) for m in "ab"}
    assert Model(family("f", values)).difference("b", "a").verdict == "different"


def test_one_seed_has_no_interval_and_a_missing_family_no_difference():
    scores = family("f", {"a": [0.5, 0.6], "b": [0.7], "c": [0.5, 0.4]})
    alone = Model(scores).difference("b", "a")
    assert (alone.low, alone.high, alone.verdict) == (None, None, "undecided")
    assert alone.estimate == pytest.approx(0.15)
    assert Model(scores).difference("c", "a").low is not None
    assert Model([*scores, *family("g", {"a": [0.5, 0.6]})]).difference("c", "a") is None


def test_a_method_without_all_seeds_or_tasks_widens_its_interval_only():
    generator = np.random.default_rng(1)
    scores = simulated(generator, 5)
    fewer = [s for s in scores if not (s.method == "b" and s.training[1] in "34")]
    whole, less = Model(scores).difference("b", "a"), Model(fewer).difference("b", "a")
    assert less.high - less.low > whole.high - whole.low
    without = [s for s in scores if not (s.method == "b" and s.task == "own0")]
    assert Model(without).difference("b", "a") is not None


def test_families_weigh_alike_whatever_their_number_of_tasks():
    scores = [s for task in "wxyz" for s in family("many", {"a": [0.5, 0.502], "b": [0.6, 0.602]}, task)]
    scores += family("one", {"a": [0.5, 0.502], "b": [0.5, 0.502]})
    for i, score in enumerate(scores):  # trainings of their own
        scores[i] = Score(score.method, score.family, score.task, f"{score.training}{score.task}", score.value)
    assert Model(scores).difference("b", "a").estimate == pytest.approx(0.05, abs=1e-3)
    assert Model(scores).difference("b", "a", ["many"]).estimate == pytest.approx(0.1, abs=1e-3)
