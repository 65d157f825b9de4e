"""Choosing learning rates: validation records only, one common grid, the choice and its origin written down."""

import pytest
import yaml

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.sweeps import tune
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from tests.records import record


def tuned(
    method: str, lr: float, accuracy: float, loss: float = 1.0, seed: int = 100, stage="tune", rank=8, **train
) -> Record:
    spec = {
        "stage": stage,
        "adapter": {"rank": rank},
        "task": {"primary": "accuracy"},
        "train": {"lr": lr, "steps": 10} | train,
    }
    metrics = {"accuracy": accuracy, "reference_loss": loss}
    run_id = f"{method}-{lr}-{rank}-{seed}-{stage}"
    return record(method, seed, spec=spec, run_id=run_id, metrics=metrics)


def test_the_best_mean_over_seeds_wins_and_ties_go_to_the_lower_loss():
    records = [tuned("lora", 1e-3, 0.9, seed=1), tuned("lora", 1e-3, 0.1, seed=2)]
    records += [tuned("lora", 1e-2, 0.6, seed=1), tuned("lora", 1e-2, 0.6, seed=2)]
    records += [tuned("svfit", 1e-3, 0.0, loss=3.0, seed=s) for s in (1, 2)]
    records += [tuned("svfit", 1e-2, 0.0, loss=2.0, seed=s) for s in (1, 2)]
    chosen = tune.select(records, "pocket", "math")
    assert chosen["lora"].lr == 1e-2 and chosen["svfit"].lr == 1e-2


def test_test_set_records_never_count():
    records = [tuned("lora", 1e-3, 0.5), tuned("lora", 1e-2, 0.1), tuned("lora", 1e-1, 1.0, stage="final")]
    assert tune.select(records, "pocket", "math")["lora"].lr == 1e-3


def test_a_learning_rate_that_failed_was_tried_and_is_the_worst():
    failed = tuned("lora", 1e-1, 0.9).model_copy(update={"status": "failed", "metrics": {}})
    records = [tuned("lora", 1e-2, 0.0), failed, tuned("eva", 1e-2, 0.5), tuned("eva", 1e-1, 0.1)]
    assert tune.select(records, "pocket", "math")["lora"].lr == 1e-2


def test_methods_with_different_grids_are_refused():
    records = [tuned("lora", 1e-3, 0.5), tuned("lora", 1e-2, 0.5), tuned("eva", 1e-3, 0.5)]
    with pytest.raises(UserError, match="not tuned on one common grid"):
        tune.select(records, "pocket", "math")


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
    for one in (tuned("lora", 1e-3, 0.1), tuned("lora", 1.25e-3, 0.5), tuned("lora", 1e-2, 0.2)):
        store.write(one)
    assert tune.main(["family=math", f"results_dir={tmp_path}"]) == 0
    text = (tmp_path / "conf/tuned/pocket/math/lora.yaml").read_text()
    assert yaml.safe_load(text) == {"train": {"lr": 1.25e-3}} and text.startswith("# @package _global_")
    assert "lora-0.00125-8-100-tune" in text and "edge of the grid" not in capsys.readouterr().err


def test_a_grid_over_ranks_chooses_the_pair_and_writes_both():
    records = [
        tuned("lora", lr, accuracy, rank=rank)
        for lr, rank, accuracy in [(1e-3, 2, 0.1), (1e-2, 2, 0.5), (1e-3, 4, 0.7), (1e-2, 4, 0.6)]
    ]
    choice = tune.select(records, "pocket", "math")["lora"]
    assert (choice.lr, choice.rank) == (1e-3, 4)
    assert yaml.safe_load(choice.to_yaml()) == {"adapter": {"rank": 4}, "train": {"lr": 1e-3}}
    with pytest.raises(UserError, match="not tuned on one common grid"):
        tune.select([*records, *(tuned("eva", lr, 0.5, rank=2) for lr in (1e-3, 1e-2))], "pocket", "math")


def test_a_choice_can_be_made_for_one_task():
    assert tune.select([tuned("lora", 1e-3, 0.5)], "pocket", "gsm8k")["lora"].rank is None
    with pytest.raises(UserError, match="No stage=tune records of 'glue/cola'"):
        tune.select([tuned("lora", 1e-3, 0.5)], "pocket", "glue/cola")
