"""Every language model of the lite and paper recipes, as a small random checkpoint of its architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from eva_bench import models
from eva_bench.methods.base import Method
from eva_bench.records.environment import cached_name
from eva_bench.records.store import Store
from eva_bench.run import cache
from eva_bench.run.cell import run_cell
from eva_bench.run.pipeline import initial_factors_file
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_spec
from tests.checkpoints import KINDS
from tests.conftest import CONF
from tests.e2e.conftest import ROWS, SHORT_RUN

BF16 = {"smollm2_135m", "llama2_7b"}  # keep the recipes' bf16 autocast; the others run in float32, faster on a CPU


def hub_models() -> list[str]:
    found = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / "model").glob("*.yaml"))}
    language = {name: model for name, model in found.items() if model.get("hub_id") and model["kind"] == "language"}
    return [name for name, model in language.items() if not model.get("sharded")]  # tests/e2e/test_processes.py


def cells() -> list[tuple[str, str]]:
    return [(scale, name) for scale in ("lite", "paper") for name in hub_models()]


def method_for(scale: str, name: str) -> str:
    """All methods get their turn over the cells; a method that is not there yet does not."""
    names = [n for n in ("lora", "pissa", "eva", "olora", "sorsa", "svfit") if (CONF / "method" / f"{n}.yaml").exists()]
    return names[cells().index((scale, name)) % len(names)]


def trained_model(spec, runs: Path) -> torch.nn.Module:
    """The model at the end of training, from the caches of the run."""
    bundle = models.load(spec.model, spec.data, "cpu")
    method = build(spec.method, Method)
    adapter = method.install(bundle, cache.load_initialisation(initial_factors_file(runs / "cache", spec, method)))
    tensors, _ = cache.load_tensors(runs / "cache/train" / cached_name(spec.train_id))
    adapter.load_state_dict(tensors)
    return bundle.module


def test_every_model_of_the_recipes_has_a_small_checkpoint():
    assert set(hub_models()) <= set(KINDS)


@pytest.mark.parametrize(("scale", "name"), cells())
def test_two_steps_evaluation_record_and_a_stock_adapter(scale, name, checkpoint, mirror, tmp_path, places):
    folder = checkpoint(name)
    precision = [] if name in BF16 else ["train.precision=float32"]
    spec = compose_spec(
        [f"method={method_for(scale, name)}", "task=gsm8k", f"scale={scale}", f"model={name}", f"model.path={folder}",
         f"data.root={mirror}", *SHORT_RUN, *precision, *places]
    )  # fmt: skip
    assert spec.train.precision == ("bf16" if name in BF16 else "float32")

    assert run_cell(spec) == 0

    record = Store(tmp_path / "results").read(spec)
    assert (record.status, record.steps, record.metrics["samples"]) == ("ok", 2, 4)
    assert record.metrics.keys() == record.metrics_before.keys() >= {"exact_match_strict", "reference_loss"}
    assert record.metrics["reference_loss"] != record.metrics_before["reference_loss"]
    assert record.data == {"rows": ROWS, "truncated": 0, "dropped": 0}
    assert record.spec.identity.train_data.name == "meta-math/MetaMathQA"
    assert record.spec.identity.eval_data.name == "openai/gsm8k"
    for place in (folder, mirror, tmp_path):
        assert str(place) not in record.model_dump_json()

    runs = tmp_path / "runs"
    tokens = torch.randint(3, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    untouched = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=spec.model.attention
    )
    with torch.no_grad():
        wanted = trained_model(spec, runs)(tokens).logits
        loaded = PeftModel.from_pretrained(untouched, runs / spec.run_id / "adapter").eval()
        assert (loaded(tokens).logits - wanted).abs().max() <= 1e-5
        with loaded.disable_adapter():
            assert (loaded(tokens).logits - wanted).abs().max() > 1e-6  # training changed something


def test_full_fine_tuning_leaves_a_whole_checkpoint_that_loads(checkpoint, mirror, tmp_path, places):
    spec = compose_spec(
        ["method=full", "task=gsm8k", "scale=lite", f"model.path={checkpoint('smollm2_135m')}", f"data.root={mirror}",
         *SHORT_RUN, *places]
    )  # fmt: skip
    assert spec.train.lr == 2e-5 and spec.origins.tuned == ["lite/math/full"]
    assert run_cell(spec) == 0
    stored, _ = cache.load_tensors(tmp_path / "runs/cache/train" / cached_name(spec.train_id))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / spec.run_id / "model").state_dict()
    assert stored and all(torch.equal(loaded[key], value) for key, value in stored.items())
