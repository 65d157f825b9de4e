"""Learning rates as they are published: optimum, plateau, neighbours, and whether other seeds would choose others."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.figures.rates import draw_rates
from eva_bench.reporting.rates import optima, optima_against
from eva_bench.reporting.statistics import Curve
from eva_bench.reporting.tables.build import AROUND_TITLE, build_table
from eva_bench.reporting.tables.rates import build_rates
from eva_bench.reporting.tables.spec import TableSpec, read_table
from eva_bench.reporting.tables.tuning import tuned_families
from eva_bench.settings.spec import PROTOCOL
from eva_bench.sweeps import tune
from tests.conftest import CONF
from tests.records import record

GRID = [1e-3 * 2**k for k in range(6)]
SPEC = {"stage": "tune", "protocol": PROTOCOL}


def tried(method: str, task: str, seed: int, lr: float, loss: float, score: float, **changes):
    """A tuning run whose validation loss has the logarithm `loss`."""
    name = f"{method}-{task}-{seed}-{lr}"
    line = [f"method={method}", f"task={task}", f"seed={seed}", "stage=tune", f"train.lr={lr}"]
    return record(
        method, seed, task=task, spec=SPEC | {"train": {"lr": lr}}, run_id=name, train_id=name,
        metrics={"exact_match_strict": score, "reference_loss": math.exp(loss)},
        origins={"command_line": line}, **changes,
    )  # fmt: skip


def grid_of(method: str, optimum: float, tasks=("gsm8k", "math"), seeds=(100, 101), noise=0.0) -> list:
    """Losses that are parabolas over the logarithm of the rate; scores fall 10 points with every factor of two."""
    generator = np.random.default_rng(1)
    found = []
    for task, seed in itertools.product(tasks, seeds):
        middle = math.log2(optimum) + noise * generator.normal()
        for lr in GRID:
            away = math.log2(lr) - middle
            found.append(tried(method, task, seed, lr, away**2, max(0.0, 0.8 - 0.1 * abs(away))))
    return found


RECORDS = [*grid_of("lora", 6e-3), *grid_of("eva", 3e-3)]


def tables(records) -> dict:
    return {table.name: table for table in build_rates(Archive(records), "pocket")}


def row(table, title: str) -> dict[str, str]:
    (line,) = (line for line in table.lines if line.title == title)
    return dict(zip(table.header[1:], [cell.text for cell in line.cells], strict=True))


def test_the_optimum_lies_between_the_rates_of_the_grid():
    methods = tuned_families(Archive(RECORDS).tuning, "pocket", ["lora"])["math"]
    assert list(methods["lora"].curve.optima.values()) == pytest.approx([6e-3] * 4)
    assert optima_against(methods, "lora")["eva"][0] == pytest.approx(0.5)
    assert optima_against(methods, "sorsa") == {} and list(optima_against(methods, "lora")) == ["eva"]


def test_its_interval_is_a_t_interval_over_tasks_and_seeds_with_the_methods_pooled_deviation():
    records = [*grid_of("lora", 6e-3, noise=0.2), *grid_of("eva", 3e-3, noise=0.1)]
    methods = tuned_families(Archive(records).tuning, "pocket", ["lora"])["math"]
    logs = {name: np.log(list(tuned.curve.optima.values())) for name, tuned in methods.items()}
    pooled = math.sqrt(np.mean([np.var(values, ddof=1) for values in logs.values()]))
    half = stats.t.ppf(0.975, 6) * pooled / 2
    middle, low, high = optima(methods)["eva"]
    assert np.log([low, middle, high]) == pytest.approx(logs["eva"].mean() + np.array([-half, 0, half]))
    assert optima(tuned_families(Archive(grid_of("lora", 6e-3, ["gsm8k"], [1])).tuning, "pocket", [])["math"])[
        "lora"
    ] == (pytest.approx(6e-3), None, None)


def test_at_an_end_of_the_grid_the_optimum_is_that_end_and_failed_neighbours_pull_nothing_away():
    assert Curve.of({1.0: {("t", 0): 0.0}, 2.0: {("t", 0): 1.0}, 4.0: {("t", 0): 2.0}}).optima == {("t", 0): 1.0}
    curve = Curve.of({1.0: {("t", 0): 1.0}, 2.0: {("t", 0): 0.0}, 4.0: {("t", 0): None}})
    assert curve.optima[("t", 0)] == pytest.approx(2 / 2**0.5) and not curve.at_edge
    assert Curve.of({1.0: {("t", 0): 0.0}, 2.0: {("t", 0): 1.0}}).at_edge


def test_the_table_gives_choice_plateau_and_neighbours_as_the_selection_would():
    records = [*RECORDS, tried("lora", "gsm8k", 100, 0.064, 9.0, 0.0, status="failed")]
    found = tables(records)
    assert row(found["rates_math"], "lora")["chosen"] == f"{tune.select(RECORDS, 'pocket', 'math')['lora'].lr:g}"
    lora = row(found["rates_math"], "eva")
    # the optimum is 3e-3, log2(3 / 2) = 0.58 above 2e-3 and 0.42 below 4e-3, 1.42 below 8e-3
    assert (lora["chosen"], lora["score"], lora["at half"], lora["at twice"]) == ("0.004", "75.8", "74.2", "65.8")
    assert lora["plateau"] == "0.002 to 0.004" and lora["times lora's [95 %]"] == "0.5"
    assert lora["moves"] == "0 %" and lora["edge"] == ""
    curves = row(found["rates_math_curves"], "eva")
    assert curves["0.004"] == "75.8 (0.17)" and curves["0.064"] == "–"  # 0.415^2
    bold = [cell.text for line in found["rates_math_curves"].lines for cell in line.cells if cell.bold]
    assert len(bold) == 2 and "75.8 (0.17)" in bold and "goal: at most 10 %, kept" in found["rates"].notes[0]


def test_other_seeds_choose_as_often_another_rate_as_a_rerun_of_the_selection_does():
    lows = {("gsm8k", 100): 3, ("gsm8k", 101): 3, ("math", 100): 3, ("math", 101): 0}
    records = [
        tried("lora", task, seed, lr, 0.3 * abs(k - low) ** 1.5, 0.5)
        for (task, seed), low in lows.items() for k, lr in enumerate(GRID)
    ]  # fmt: skip
    chosen = GRID.index(tune.select(records, "pocket", "math")["lora"].lr)
    moved = []
    for first, second, third, fourth in itertools.product((100, 101), repeat=4):
        drawn = [
            tried("lora", run.task, new, run.spec.train.lr, math.log(run.metrics["reference_loss"]), 0.5)
            for task, seeds in (("gsm8k", (first, second)), ("math", (third, fourth)))
            for new, seed in enumerate(seeds)
            for run in records if (run.task, run.spec.seed) == (task, seed)
        ]  # fmt: skip
        moved.append(abs(GRID.index(tune.select(drawn, "pocket", "math")["lora"].lr) - chosen) > 1)
    (tuned,) = tuned_families(Archive(records).tuning, "pocket", [])["math"].values()
    assert 0 < np.mean(moved) < 1 and tuned.curve.moved() == pytest.approx(np.mean(moved), abs=0.05)
    assert "missed" in tables(records)["rates"].notes[0]


def test_a_choice_that_rests_on_one_seed_is_not_judged():
    records = [tried("lora", "gsm8k", 100, lr, abs(k - 3), 0.5) for k, lr in enumerate(GRID)]
    found = tables(records)
    assert row(found["rates_math"], "lora")["moves"] == "–"
    assert row(found["rates"], "math")["judged"] == "0" and row(found["rates"], "math")["choices that move"] == "–"
    note = found["rates"].notes[0]
    assert note.startswith("No choice rests on two seeds") and "one seed of a task: 1." in note


def test_a_main_table_shows_what_half_and_twice_the_rate_would_have_scored():
    finals = [record("eva", seed, 0.5, spec={"train": {"lr": 0.004}, "protocol": PROTOCOL}) for seed in range(2)]
    finals.append(record("lora", 0, 0.5, spec={"train": {"lr": 0.001}, "protocol": PROTOCOL}))
    table = build_table(read_table(CONF / "table/gsm8k.yaml"), Archive(RECORDS + finals), "pocket", "pocket_language")
    assert row(table, "eva")[AROUND_TITLE] == "74.2 / 75.8 / 65.8" and row(table, "pissa")[AROUND_TITLE] == "–"
    assert row(table, "lora")[AROUND_TITLE].startswith("– / ")  # half of it is not in the grid


def test_a_table_of_tuning_runs_takes_those_at_the_rate_that_the_selection_takes():
    spec = TableSpec.model_validate({
        "name": "length", "title": "Length", "methods": ["lora", "eva"], "stage": "tune", "best_rate": True,
        "columns": [{"task": "gsm8k", "title": "strict"}, {"task": "math", "title": "MATH"}],
    })  # fmt: skip
    built = build_table(spec, Archive(RECORDS), "pocket", "pocket_language")
    for method in ("lora", "eva"):
        chosen = tune.select(RECORDS, "pocket", "math")[method].lr
        assert row(built, method)["learning rate"] == f"{chosen:g}" and row(built, method)["seeds"] == "2"


def test_a_figure_per_family_has_a_panel_per_method_and_without_tuning_there_is_nothing():
    (drawing,) = draw_rates(Archive(RECORDS), "pocket")
    assert [ax.get_title() for ax in drawing.figure.axes if ax.get_visible()] == ["lora", "eva"]
    assert not list(draw_rates(Archive([record()]), "pocket")) and not build_rates(Archive([record()]), "pocket")


def test_rates_of_the_newest_protocol_are_shown_before_there_are_results_of_it():
    old = [record("lora", 0, 0.5, spec={"protocol": PROTOCOL - 1})]
    archive = Archive(RECORDS + old)
    assert {run.protocol for run in archive.runs} == {PROTOCOL - 1}
    assert {run.protocol for run in archive.tuning} == {PROTOCOL}
