"""What every method must hold on encoders with a head: no change before training, a trained head, all of it loads."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel

from eva_bench.methods.peft_export import export_adapter
from eva_bench.models import classifier
from eva_bench.run.train import fit
from eva_bench.settings.schema import CalibrationSettings
from eva_bench.system.errors import UserError
from eva_bench.task import Calibration
from tests.checkpoints import write_checkpoint
from tests.conftest import CONF, method_names, method_values
from tests.settings import data_settings, make_method, make_task, model_settings, train_settings

MODELS = ("roberta_base", "deberta_v3_base", "minilm_l6", "pocket_encoder")
HEADS = {
    "roberta_base": ("classifier",),
    "deberta_v3_base": ("pooler", "classifier"),
    "minilm_l6": ("classifier", "bert.pooler"),
    "pocket_encoder": ("classifier",),
}
ROWS = [
    {
        "sentence1": f"Anna found {i} books in the garden.",
        "sentence2": "The books were found." * (1 + i % 3),
        "label": i % 3,
    }
    for i in range(32)
]
TRAIN = train_settings()


@functools.cache
def folder(name: str) -> Path:
    return write_checkpoint(name, Path(tempfile.mkdtemp()) / name)


def settings_of(name: str, **changes):
    """The model section with its small checkpoint; the pocket encoder is itself."""
    return model_settings(name, "pocket:encoder" if name == "pocket_encoder" else folder(name), **changes)


def load(name: str, seed: int = 0, outputs: int = 3):
    return classifier.load(settings_of(name), data_settings(), "cpu", outputs, seed)


@functools.cache
def task():
    values = yaml.safe_load((CONF / "task" / "glue" / "mnli.yaml").read_text())
    return make_task(values | {"format": {"columns": ["sentence1", "sentence2"]}})


def examples(bundle) -> list[dict]:
    data = data_settings(max_length=40)
    return task().train_data(ROWS, "test", bundle, data, train_settings()).examples


def inputs(bundle) -> dict:
    batch = task().collate(examples(bundle)[:6], bundle)
    return {name: value for name, value in batch.items() if name != "labels"}


def logits(bundle) -> torch.Tensor:
    with torch.no_grad():
        return bundle.module(**inputs(bundle)).logits


def attach(name: str, bundle):
    method = make_method(method_values(name))
    calibration = Calibration(task(), bundle, examples(bundle), CalibrationSettings(batch_size=8), 0)
    return method, method.attach(bundle, calibration, 0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", method_names())
def test_start_training_and_export(name, model, tmp_path):
    bundle = load(model)
    untouched = load(model, seed=5).module  # another random head: the exported one must replace it
    before = logits(bundle)
    head_before = {
        n: p.detach().clone() for h in bundle.head for n, p in bundle.module.get_submodule(h).named_parameters(h)
    }

    method, adapter = attach(name, bundle)
    assert method.changes_function or torch.allclose(logits(bundle), before, atol=3e-5)
    assert set(head_before) <= set(adapter.trained())
    assert not [layer for layer in adapter.layers if layer.startswith(bundle.head)]

    fit(bundle, adapter, method, task(), examples(bundle), TRAIN, 0, checkpoint_file=tmp_path / "none.ckpt")
    trained = dict(bundle.module.named_parameters())
    assert all(not torch.equal(trained[n], old) for n, old in head_before.items())
    after = logits(bundle)
    assert not torch.allclose(after, before, atol=1e-4)

    if not method.exports_adapter:
        with adapter.plain_model():
            classifier.save(bundle, tmp_path / "model")
        again = classifier.load(model_settings(model, tmp_path / "model"), data_settings(), "cpu", 3)
        assert (logits(again) - after).abs().max() <= (2e-5 if adapter.layers else 0)
        return
    export_adapter(tmp_path / "adapter", method.export(adapter), bundle.module, "classifier", bundle.head, "base")
    loaded = PeftModel.from_pretrained(untouched, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert (loaded(**inputs(bundle)).logits - after).abs().max() <= 2e-5


@pytest.mark.parametrize("model", MODELS)
def test_targets_are_all_linear_layers_of_the_encoder_and_none_of_the_head(model):
    bundle = load(model)
    inside = {
        name
        for name, layer in bundle.module.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and name.startswith(bundle.module.base_model_prefix)
        and not name.startswith(HEADS[model])
    }
    assert set(bundle.targets) == inside and bundle.head == HEADS[model]


@pytest.mark.parametrize("model", MODELS[:3])
def test_an_ending_of_several_parts_takes_only_its_layers(model):
    for ending, per_layer in (("attention.output.dense", 1), ("layer.output.dense", 1), ("output.dense", 2)):
        found = classifier.skeleton(settings_of(model, targets=[ending]), data_settings(), 3).targets
        assert len(found) == 2 * per_layer and all(name.endswith(ending.split(".", 1)[1]) for name in found)
    with pytest.raises(UserError, match=r"out_proj matches no linear layer"):
        classifier.skeleton(settings_of(model, targets=["out_proj"]), data_settings(), 3)


@pytest.mark.parametrize("model", MODELS)
def test_the_head_is_initialised_from_the_seed_alone(model):
    one = load(model, 1)
    torch.manual_seed(99)
    same, other = load(model, 1), load(model, 2)
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))
    encoder = [dict(b.module.base_model.named_parameters()) for b in (one, other)]
    assert all(torch.equal(encoder[0][n], encoder[1][n]) for n in encoder[0])


def test_eva_counts_tokens_only():
    """Padding does not count, nor do DeBERTa's position vectors, which go through query and key layers, too."""
    bundle = load("deberta_v3_base")
    batches = [task().collate(examples(bundle)[i : i + 8], bundle) for i in range(0, 32, 8)]
    start = make_method(method_values("eva", rho=1.0, tolerance=1e-9, max_batches=4)).initialise(bundle, batches, 0)
    seen = []
    layer = bundle.module.deberta.encoder.layer[0].attention.self.query_proj
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    logits_of = [bundle.module(**{k: v for k, v in batch.items() if k != "labels"}) for batch in batches]
    handle.remove()
    assert len(seen) == 2 * len(logits_of)  # tokens and position vectors
    tokens = [x[batch["attention_mask"].bool()] for x, batch in zip(seen[::2], batches, strict=True)]
    all_tokens = torch.cat(tokens)
    centred = all_tokens - all_tokens.mean(0)
    wanted = torch.linalg.svd(centred, full_matrices=False).Vh[:4]
    A = start.factors["deberta.encoder.layer.0.attention.self.query_proj"].A
    overlap = torch.linalg.svdvals(A @ wanted.T)
    assert overlap.min() > 0.999
