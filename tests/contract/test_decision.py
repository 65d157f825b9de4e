"""What every method must hold on a decision transformer: GPT-2 blocks behind continuous tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel

from eva_bench.methods.peft_export import export_adapter
from eva_bench.models import decision
from eva_bench.run.train import fit
from eva_bench.settings.schema import CalibrationSettings
from eva_bench.task import Calibration
from tasks.control.windows import Windows
from tests.conftest import method_names, method_values
from tests.contract.test_methods import EXPORTED
from tests.control import tiny_model, trajectories, write_decision
from tests.settings import data_settings, make_method, make_task, train_settings

TASK = {
    "_target_": "tasks.metaworld.MetaWorld", "name": "t", "family": "metaworld", "primary": "success", "dataset": "t",
    "pocket": "t", "format": {}, "environment": "push", "return_target": None,
}  # fmt: skip
TRAIN = train_settings(micro_batch_size=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_decision(tmp_path_factory.mktemp("decision") / "tiny")


@pytest.fixture(scope="module")
def task():
    return make_task(TASK)


@pytest.fixture
def bundle(checkpoint):
    return decision.load(tiny_model(checkpoint), data_settings(), "cpu")


def attach(name, bundle, task, seed=0):
    method = make_method(method_values(name))
    if (needed := getattr(method, "triplets_per_rank", 1)) > 1:  # the head has four outputs
        method = make_method(method_values(name, rank=4 // needed))
    examples = Windows(trajectories(8), bundle.module.config.context, 200.0)
    calibration = Calibration(task, bundle, examples, CalibrationSettings(batch_size=16), seed)
    return method, method.attach(bundle, calibration, seed), examples


def batch_of(task, bundle, count=6):
    return task.collate(list(Windows(trajectories(1, seed=5), 4, 200.0))[-count:], bundle)


@pytest.mark.parametrize("name", method_names())
def test_nothing_changes_at_the_start_and_training_then_changes_it(name, bundle, task, tmp_path):
    batch = batch_of(task, bundle)
    with torch.no_grad():
        before = bundle.module(**batch)
        method, adapter, examples = attach(name, bundle, task)
        assert method.changes_function or torch.allclose(bundle.module(**batch), before, atol=2e-5)
    fit(bundle, adapter, method, task, examples, TRAIN, 0, checkpoint_file=tmp_path / "c")
    with torch.no_grad():
        assert (bundle.module(**batch) - before)[batch["mask"]].abs().max() > 1e-4


@pytest.mark.parametrize("name", EXPORTED)
def test_stock_peft_loads_the_adapter_on_the_untouched_model(name, bundle, task, tmp_path):
    untouched, batch = copy.deepcopy(bundle.module), batch_of(task, bundle)
    method, adapter, examples = attach(name, bundle, task)
    fit(bundle, adapter, method, task, examples, TRAIN, 0, checkpoint_file=tmp_path / "c")
    export_adapter(tmp_path / "adapter", method.export(adapter), bundle.module, bundle.kind, bundle.head, "tiny")
    loaded = PeftModel.from_pretrained(untouched, tmp_path / "adapter").eval()
    with torch.no_grad():
        trained = bundle.module(**batch)
        assert (loaded(**batch) - trained).abs().max() <= 1e-5
        with adapter.merged():
            assert torch.allclose(bundle.module(**batch), trained, atol=2e-5)
        with loaded.disable_adapter():
            assert (loaded(**batch) - trained).abs().max() > 1e-4


@pytest.mark.parametrize("name", method_names())
def test_same_seed_same_start(name, checkpoint, task):
    states = [
        attach(name, decision.load(tiny_model(checkpoint), data_settings(), "cpu"), task)[1].state_dict()
        for _ in range(2)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_eva_reads_real_steps_only(bundle, task):
    """Rows of padding would pull the subspaces towards the embedding of zeros."""
    examples = Windows(trajectories(8), 4, 200.0)
    results = []
    for filler in (0.0, 50.0):
        batch = task.collate([examples[0], *list(examples)[9:12]], bundle)
        assert not batch["mask"].all()
        batch["states"][~batch["mask"]] = filler
        method = make_method(method_values("eva_rho1"))
        start = method.initialise(bundle, [batch] * 4, 0)
        results.append({name: factors.A for name, factors in start.factors.items()})
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-4) for name in results[0])


def test_a_saved_model_is_the_loaded_one(bundle, checkpoint, task, tmp_path):
    decision.save(bundle, tmp_path / "again")
    again = decision.load(tiny_model(tmp_path / "again"), data_settings(), "cpu")
    batch = batch_of(task, bundle)
    with torch.no_grad():
        assert torch.equal(again.module(**batch), bundle.module(**batch))
