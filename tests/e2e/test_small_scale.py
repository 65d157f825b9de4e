"""Small scale: real GLUE on all-MiniLM-L6-v2, a thousand training rows a set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eva_bench import models
from eva_bench.records.store import Store
from eva_bench.run.cell import run_cell
from eva_bench.settings.compose import compose_settings, compose_spec, to_settings
from eva_bench.settings.spec import RunSpec, stream_seed
from eva_bench.sweeps.plan import read_suite
from eva_bench.task import split_rows
from tests.conftest import CONF

SETS = sorted(path.stem for path in (CONF / "task/glue").glob("*.yaml"))
GIVEN = ("cola", "mrpc", "rte", "sst2", "stsb")
STEPS = ["train.epochs=null", "train.steps=3", "tracking=off", "threads=1"]


@pytest.mark.parametrize("name", SETS)
def test_every_set_composes(name):
    settings = to_settings(compose_settings(["method=eva", f"task=glue/{name}", "scale=small"]))
    assert (settings.data.rows, settings.data.source, settings.model.name) == (1000, "hub", "minilm_l6")
    assert settings.train.batch_size % settings.train.micro_batch_size == 0


def test_rates_and_results_never_share_a_seed():
    rates, (small,) = read_suite("small_rates")["grids"], read_suite("small")["grids"]
    seeds = {seed for grid in rates for seed in grid["seed"]}
    assert not seeds & set(small["seed"]) and len(small["seed"]) >= 3 and "stage" not in small
    methods = [name for grid in rates for name in np.atleast_1d(grid["method"])]
    assert set(methods) == set(small["method"]) and len(small["method"]) == 9
    for grid in rates:
        assert grid["stage"] == "tune" and set(grid["task"]) < set(small["task"])
    assert set(small["task"]) == {f"glue/{name}" for name in GIVEN}


def specification(real_data: Path, tmp_path: Path, *overrides: str) -> RunSpec:
    model = real_data / "models/sentence-transformers/all-MiniLM-L6-v2"
    places = [f"model.path={model}", f"data.root={real_data / 'hub'}"]
    return compose_spec([*overrides, "scale=small", *places, f"results_dir={tmp_path}"])


@pytest.mark.real
def test_rte_with_the_real_model(real_data, tmp_path):
    rte = ["method=eva", "task=glue/rte"]
    assert len(split_rows(specification(real_data, tmp_path, *rte))[1].rows) == 277
    spec = specification(real_data, tmp_path, *rte, "eval.limit=40", *STEPS)
    assert run_cell(spec) == 0
    record = Store(tmp_path).read(spec)
    assert (record.status, record.steps, record.data["rows"]) == ("ok", 3, 1000)
    assert record.spec.identity.model.checkpoint == "all-MiniLM-L6-v2" and record.spec.identity.train_data.as_pinned
    assert record.metrics["samples"] == record.metrics_before["samples"] == 40
    assert len(record.ranks) == 36 and sum(record.ranks.values()) == 36 * 8
    assert record.metrics["reference_loss"] != record.metrics_before["reference_loss"]
    assert str(real_data) not in record.model_dump_json()


@pytest.mark.real
def test_the_head_is_the_same_for_all_methods_and_another_for_every_seed(real_data, tmp_path):
    heads = {}
    for method, seed in (("lora", 0), ("full", 0), ("lora", 1)):
        spec = specification(real_data, tmp_path, f"method={method}", "task=glue/stsb", f"seed={seed}")
        bundle = models.load(spec.model, spec.data, "cpu", 1, stream_seed(spec.seed, "head"))
        heads[method, seed] = bundle.module.classifier.weight
        assert bundle.head == ("classifier", "bert.pooler") and heads[method, seed].shape == (1, 384)
    assert torch.equal(heads["lora", 0], heads["full", 0]) and not torch.equal(heads["lora", 0], heads["lora", 1])


@pytest.mark.real
def test_files_of_other_libraries_do_not_change_what_the_model_is(real_data, tmp_path):
    """The hub's repository has settings of sentence-transformers beside the checkpoint."""
    original = real_data / "models/sentence-transformers/all-MiniLM-L6-v2"
    copy = tmp_path / "all-MiniLM-L6-v2"
    copy.mkdir()
    for file in original.iterdir():
        (copy / file.name).symlink_to(file)
    (copy / "modules.json").write_text(json.dumps([{"idx": 0, "path": "", "type": "Transformer"}]))
    ours = specification(real_data, tmp_path, "method=lora", "task=glue/rte")
    places = [f"model.path={copy}", f"data.root={real_data / 'hub'}"]
    theirs = compose_spec(["method=lora", "task=glue/rte", "scale=small", *places, f"results_dir={tmp_path}"])
    assert ours.run_id == theirs.run_id
