"""Choosing learning rates: validation records only, by mean loss, the choice and its origin written down."""

import math

import numpy as np
import pytest
import yaml

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.reporting.statistics import Curve
from eva_bench.settings.spec import PROTOCOL
from eva_bench.sweeps import tune
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from tests.records import record


def tuned(
    method: str, lr: float, loss: float, *, accuracy=0.5, seed: int = 100, stage="tune", rank=8, task="gsm8k",
    kind="language", settings=(), protocol=PROTOCOL, **train,
) -> Record:  # fmt: skip
    spec = {
        "protocol": protocol,
        "stage": stage,
        "adapter": {"rank": rank},
        "model": {"kind": kind},
        "task": {"primary": "accuracy"},
        "train": {"lr": lr, "steps": 10} | train,
    }
    metrics = {"accuracy": accuracy, "reference_loss": loss}
    run_id = f"{method}-{task}-{lr}-{rank}-{seed}-{stage}"
    line = [f"method={method}", f"task={task}", f"train.lr={lr}", f"seed={seed}", f"stage={stage}", *settings]
    origins = {"command_line": line}
    return record(method, seed, spec=spec, run_id=run_id, metrics=metrics, task=task, origins=origins)


def test_the_lowest_mean_loss_over_tasks_and_seeds_wins_whatever_the_accuracy():
    records = [tuned("lora", 1e-3, 0.9, seed=1), tuned("lora", 1e-3, 0.2, seed=2, accuracy=0.9)]
    records += [tuned("lora", 2e-3, 0.4, seed=1), tuned("lora", 2e-3, 0.4, seed=2)]
    records += [tuned("svfit", 1e-3, 0.3, task=t, seed=1) for t in ("gsm8k", "math")]
    records += [tuned("svfit", 2e-3, loss, task=t, seed=1) for t, loss in (("gsm8k", 0.2), ("math", 0.6))]
    chosen = tune.select(records, "pocket", "math")
    assert chosen["lora"].curve.best == 2e-3 and chosen["svfit"].lr == 1e-3


def test_a_task_with_larger_losses_does_not_decide_alone():
    losses = {1e-3: {"gsm8k": 0.1, "math": 10.0}, 2e-3: {"gsm8k": 0.2, "math": 9.0}}
    records = [tuned("lora", lr, loss, task=task) for lr, found in losses.items() for task, loss in found.items()]
    assert tune.select(records, "pocket", "math")["lora"].curve.best == 1e-3


def test_control_is_chosen_by_success():
    records = [tuned("lora", 1e-3, 0.1, accuracy=0.2, kind="decision"), tuned("lora", 2e-3, 0.9, kind="decision")]
    assert tune.select(records, "pocket", "math")["lora"].lr == 2e-3


def test_experiments_and_other_protocols_never_count():
    records = [tuned("lora", 1e-3, 0.5), tuned("lora", 2e-3, 0.9)]
    records += [tuned("lora", 4e-3, 0.1, settings=["train.steps=20"], steps=20), tuned("lora", 8e-3, 0.1, protocol=1)]
    assert tune.select(records, "pocket", "math")["lora"].curve.rates == (1e-3, 2e-3)


RATES = [1e-3 * 2**k for k in range(6)]


@pytest.mark.parametrize("missing", [None, ("gsm8k", 1, 2)])
def test_on_simulated_curves_the_right_rate_is_chosen(missing):
    """A parabola over log2 of the rate with its lowest point at the fourth rate; noise of cells, shared by rates."""
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(100):
        values = {rate: {} for rate in RATES}
        for task, level in (("gsm8k", 1.0), ("math", 3.0)):
            for seed in (0, 1):
                common = rng.normal(0, 0.5)
                for k, rate in enumerate(RATES):
                    if (task, seed, k) != missing:
                        values[rate][task, seed] = level + 0.1 * (k - 3) ** 2 + common + rng.normal(0, 0.01)
        right += Curve.of(values).chosen == RATES[3]
    assert right >= 99


def test_within_one_standard_error_the_lower_rate_is_taken_and_beyond_it_not():
    losses = {1e-3: [1.9, 1.1], 2e-3: [0.8, 1.1], 4e-3: [0.6, 1.2]}  # differences to 4e-3: (1.3, -0.1) and (0.2, -0.1)
    values = {rate: {("gsm8k", seed): loss for seed, loss in enumerate(found)} for rate, found in losses.items()}
    curve = Curve.of(values)  # 2e-3: mean 0.05, error 0.15; 1e-3: mean 0.6, error 0.7
    assert curve.best == 4e-3 and curve.chosen == 1e-3
    values[1e-3]["gsm8k", 1] = 1.9  # (1.3, 0.7): mean 1.0, error 0.3
    assert Curve.of(values).chosen == 2e-3
    alone = Curve.of({rate: {("gsm8k", 0): found[0]} for rate, found in losses.items()})
    assert alone.chosen == alone.best  # nothing is known of the noise


def test_tasks_that_disagree_about_the_rate_are_no_noise_of_the_choice():
    """Over all cells together the error of the differences -0.5, -0.4, 0.8, 0.9 would be 0.38, and the rate 1e-3."""
    low = {("gsm8k", 0): 0.5, ("gsm8k", 1): 0.6, ("math", 0): 1.8, ("math", 1): 1.9}
    assert Curve.of({1e-3: low, 2e-3: dict.fromkeys(low, 1.0)}).chosen == 2e-3  # mean 0.2, error 0.035
    one = {cell: loss for cell, loss in low.items() if cell[1] == 0}
    assert Curve.of({1e-3: one, 2e-3: dict.fromkeys(one, 1.0)}).chosen == 2e-3  # one seed: the best one


def test_a_failed_rate_is_the_worst_and_cells_that_a_rate_lacks_are_left_out():
    curve = Curve.of({1e-3: {0: 1.0, 1: 9.0}, 2e-3: {0: 2.0}, 4e-3: {0: None, 1: 0.0}})
    assert curve.best == 1e-3 and curve.mean(1e-3) == 1.0 and curve.mean(4e-3) == math.inf
    with pytest.raises(ValueError, match="no task and seed"):
        Curve.of({1e-3: {0: 1.0}, 2e-3: {1: 1.0}})


def test_test_set_records_never_count():
    records = [tuned("lora", 1e-3, 0.5), tuned("lora", 1e-2, 0.9), tuned("lora", 1e-1, 0.0, stage="final")]
    assert tune.select(records, "pocket", "math")["lora"].lr == 1e-3


def test_a_learning_rate_that_failed_was_tried_and_is_the_worst():
    failed = tuned("lora", 1e-1, 0.1).model_copy(update={"status": "failed", "metrics": {}})
    records = [tuned("lora", 1e-2, 0.9), failed, tuned("eva", 1e-2, 0.5), tuned("eva", 1e-1, 0.6)]
    assert tune.select(records, "pocket", "math")["lora"].lr == 1e-2


def test_grids_may_lie_elsewhere_but_not_be_coarser():
    records = [tuned("lora", lr, abs(math.log(lr / 4e-3))) for lr in (2e-3, 4e-3, 8e-3)]
    records += [tuned("full", lr, abs(math.log(lr / 1e-3))) for lr in (1e-4, 5e-4, 1e-3, 2e-3)]
    assert {name: choice.lr for name, choice in tune.select(records, "pocket", "math").items()} == {
        "lora": 4e-3, "full": 1e-3,
    }  # fmt: skip
    records += [tuned("eva", lr, abs(math.log(lr / 4e-3))) for lr in (1e-3, 4e-3, 8e-3)]
    with pytest.raises(UserError, match="not equally fine"):
        tune.select(records, "pocket", "math")


def test_an_optimum_at_the_edge_is_reported(capsys):
    tune.select([tuned("lora", 1e-3, 0.5), tuned("lora", 2e-3, 0.6), tuned("lora", 4e-3, 0.7)], "pocket", "math")
    assert "edge of the grid" in capsys.readouterr().err


def test_records_that_differ_in_more_are_refused():
    with pytest.raises(UserError, match="differ in more than method, seed, learning rate"):
        tune.select([tuned("lora", 1e-3, 0.5), tuned("lora", 1e-2, 0.5, steps=20)], "pocket", "math")


def test_without_tuning_records_it_says_what_to_run(tmp_path, capsys):
    assert tune.main(["family=math", f"results_dir={tmp_path}"]) == 2
    assert "run the grid first" in capsys.readouterr().err


def test_the_file_holds_the_exact_value_and_its_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "CONF", tmp_path / "conf")
    store = Store(tmp_path)
    store.check_writable()
    for one in (tuned("lora", 1e-3, 0.5), tuned("lora", 1.25e-3, 0.1), tuned("lora", 1e-2, 0.2)):
        store.write(one)
    assert tune.main(["family=math", f"results_dir={tmp_path}"]) == 0
    text = (tmp_path / "conf/tuned/pocket/math/lora.yaml").read_text()
    assert yaml.safe_load(text) == {"train": {"lr": 1.25e-3}} and text.startswith("# @package _global_")
    assert "lora-gsm8k-0.00125-8-100-tune" in text and "edge of the grid" not in capsys.readouterr().err


def test_a_grid_over_ranks_chooses_the_pair_and_writes_both():
    records = [
        tuned("lora", lr, loss, rank=rank)
        for lr, rank, loss in [(1e-3, 2, 0.9), (1e-2, 2, 0.5), (1e-3, 4, 0.3), (1e-2, 4, 0.4)]
    ]
    choice = tune.select(records, "pocket", "math")["lora"]
    assert (choice.lr, choice.rank) == (1e-3, 4)
    assert yaml.safe_load(choice.to_yaml()) == {"adapter": {"rank": 4}, "train": {"lr": 1e-3}}


def test_a_choice_can_be_made_for_one_task():
    assert tune.select([tuned("lora", 1e-3, 0.5)], "pocket", "gsm8k")["lora"].rank is None
    with pytest.raises(UserError, match="No stage=tune records of 'glue/cola'"):
        tune.select([tuned("lora", 1e-3, 0.5)], "pocket", "glue/cola")


def test_a_rank_that_only_some_methods_were_tuned_at_does_not_count():
    records = [tuned(method, lr, loss) for method in ("lora", "eva") for lr, loss in [(1e-3, 0.5), (1e-2, 0.6)]]
    more = [tuned("lora", lr, 0.1, rank=32) for lr in (1e-3, 1e-2)]
    chosen = tune.select(records + more, "pocket", "gsm8k")
    assert {method: (choice.lr, choice.rank) for method, choice in chosen.items()} == {
        "lora": (1e-3, None),
        "eva": (1e-3, None),
    }
    with pytest.raises(UserError, match="no common rank"):
        tune.select([tuned("lora", 1e-3, 0.5), tuned("eva", 1e-3, 0.5, rank=4)], "pocket", "gsm8k")
