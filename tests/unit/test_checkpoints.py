"""Checkpoints that are not what they seem: one sentence each, and nothing of theirs is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from eva_bench.models import classifier, decision, language, vision
from eva_bench.system.errors import UserError
from tests.checkpoints import write_checkpoint
from tests.control import write_decision
from tests.settings import data_settings, model_settings
from tests.vision import PIXELS, write_vit

FOREIGN = """
from pathlib import Path
Path(r"{marker}").touch()
from transformers import LlamaConfig, LlamaForCausalLM
class Config(LlamaConfig):
    model_type = "{model_type}"
class Model(LlamaForCausalLM):
    config_class = Config
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small Llama of two layers."""
    return write_checkpoint("llama2_7b", tmp_path / "llama")


def settings(folder: Path):
    return model_settings("llama2_7b", folder, dtype="float32", targets=["q_proj"])


def load(folder: Path):
    return language.load(settings(folder), data_settings())


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_weights(folder: Path, edit) -> None:
    """Edit the tensors of the one weights file in place."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("model_type", ["foreign", "llama"])
def test_code_of_a_checkpoint_is_never_run(folder, tmp_path, model_type, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what a person might answer
    monkeypatch.setattr("signal.alarm", lambda *_: 0)
    marker = tmp_path / "ran"
    (folder / "foreign.py").write_text(FOREIGN.format(marker=marker, model_type=model_type))
    names = {"AutoConfig": "foreign.Config", "AutoModelForCausalLM": "foreign.Model"}
    change(folder / "config.json", model_type=model_type, auto_map=names)
    for read in (load, lambda folder: language.skeleton(settings(folder), data_settings())):
        if model_type == "llama":  # transformers has a class of its own for it
            read(folder)
        else:
            with pytest.raises(UserError, match=r"'llama' brings code of its own \(auto_map\), which is never run\.$"):
                read(folder)
    assert not marker.exists()


def test_pickled_weights_are_never_read(folder):
    wanted = load(folder).module.state_dict()
    torch.save({name: torch.zeros_like(value) for name, value in wanted.items()}, folder / "pytorch_model.bin")
    found = load(folder).module.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(UserError, match=r"^The checkpoint 'llama' cannot be loaded: .*safetensors"):
        load(folder)


def test_more_layers_than_the_configuration_says(folder):
    change(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(UserError, match=r"'llama' has more layers than its config.json says: model\.layers\.1\."):
        load(folder)


def test_weights_that_are_left_out_on_purpose_are_no_further_layers(folder):
    change_weights(folder, lambda tensors: tensors.update({"model.statistics": torch.zeros(2)}))
    assert load(folder).kind == "language"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    name = "model.layers.1.self_attn.q_proj.weight"

    def spoil(tensors):
        tensors[name][3, 2] = value

    change_weights(folder, spoil)
    with pytest.raises(UserError, match=rf"'llama' is damaged: {name} has NaN or infinite weights\.$"):
        load(folder)


def test_weights_that_are_not_finite_of_other_kinds(tmp_path):
    def spoil(tensors):
        next(value for name, value in tensors.items() if ".0." in name).view(-1)[0] = float("nan")

    encoder, control, images = write_checkpoint("roberta_base", tmp_path / "a"), tmp_path / "b", tmp_path / "c"
    write_decision(control)
    write_vit("dinov2_s14", images)
    for place in (encoder, control, images):
        change_weights(place, spoil)
    with pytest.raises(UserError, match="'a' is damaged"):
        classifier.load(model_settings("roberta_base", encoder), data_settings(), outputs=2)
    with pytest.raises(UserError, match="'b' is damaged"):
        decision.load(model_settings("pocket_decision", control), data_settings())
    with pytest.raises(UserError, match="'c' is damaged"):
        vision.load(model_settings("dinov2_s14", images), data_settings(image_size=PIXELS), outputs=2)


def test_a_tokenizer_without_an_end(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(folder)
    change(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(UserError, match=r"tokenizer of 'llama' has no end-of-sequence token, without which no answer"):
        load(folder)


def test_a_tokenizer_without_padding_pads_with_its_end(folder):
    change(folder / "tokenizer_config.json", pad_token=None)
    assert AutoTokenizer.from_pretrained(folder).pad_token_id is None
    tokenizer = load(folder).processor
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_a_model_without_a_generation_config_answers_until_its_end(folder):
    (folder / "generation_config.json").unlink(missing_ok=True)
    bundle = load(folder)
    ids = torch.ones(1, 3, dtype=torch.long)
    answer = bundle.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False)
    assert bundle.module.generation_config.eos_token_id == bundle.processor.eos_token_id
    assert answer.shape[1] <= 5


def test_a_token_that_was_added_beyond_the_vocabulary(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<new{i}>" for i in range(20)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"has '<new19>' as token \d+, but its model embeds \d+ tokens: the model was"):
        load(folder)
