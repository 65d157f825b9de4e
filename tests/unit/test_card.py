"""The model card of an export, and where a pocket base lies."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from eva_bench import pocket_model
from eva_bench.run.card import base_name, write_card
from eva_bench.system.errors import UserError
from tests.conftest import ROOT
from tests.records import make_spec

POCKET = {"path": "pocket:language"}
HUB = {"hub_id": "org/base", "revision": "abc", "path": None}


def card(tmp_path, monkeypatch, model: dict, name: str = "adapter", **changes) -> str:
    if model == HUB:
        monkeypatch.setattr("eva_bench.run.card.model_folder", lambda settings: ROOT / "pocket/weights/language")
    spec = make_spec({"model": model, "where": {"runs_dir": str(tmp_path)}, "origins": {
        "command_line": ["method=lora", "task=gsm8k", "train.lr=0.1"]}} | changes)  # fmt: skip
    (tmp_path / name).mkdir()
    before, after = ({"exact_match_strict": score, "samples": 400.0} for score in (0.0, 0.9))
    write_card(tmp_path / name, spec, before, after, 2)
    return (tmp_path / name / "README.md").read_text()


def test_it_names_base_checksum_task_score_and_command(tmp_path, monkeypatch):
    text = card(tmp_path, monkeypatch, POCKET)
    weights = (ROOT / "pocket/weights/language/model.safetensors").read_bytes()
    for part in (
        "`pocket_language`",
        'eva_bench.pocket_model("language")',
        hashlib.sha256(weights).hexdigest(),
        "gsm8k, scale pocket",
        "exact_match_strict: 0.0 % before, 90.0 % after (400 rows",
        "`python run.py method=lora task=gsm8k train.lr=0.1`",
    ):
        assert part in text, part
    assert str(ROOT) not in text and str(tmp_path) not in text  # a card may be published


def test_a_base_of_the_hub_is_named_as_the_hub_does(tmp_path, monkeypatch):
    text = card(tmp_path, monkeypatch, HUB)
    assert yaml.safe_load(text.split("---")[1]) == {
        "base_model": "org/base", "library_name": "peft", "tags": ["eva-bench", "lora"],
    }  # fmt: skip
    assert "https://huggingface.co/org/base, revision `abc`" in text
    assert 'from_pretrained("org/base", revision="abc")' in text
    assert base_name(make_spec({"model": HUB})) == ("org/base", "abc")


@pytest.mark.parametrize(
    ("kind", "part"),
    [("classifier", 'AutoModelForSequenceClassification.from_pretrained(pocket_model("language"), num_labels=2)'),
     ("vision", "base = models.load(spec.model, spec.data, \"cpu\", 2).module")],
)  # fmt: skip
def test_other_kinds_of_models_load_in_their_way(kind, part, tmp_path, monkeypatch):
    assert part in card(tmp_path, monkeypatch, POCKET | {"kind": kind})


def test_a_whole_model_is_a_base_of_further_runs(tmp_path, monkeypatch):
    text = card(tmp_path, monkeypatch, POCKET, name="model")
    assert "model.path=<this folder>" in text and "PeftModel" not in text and "peft" not in text


def test_pocket_bases_have_a_folder():
    assert (pocket_model("language") / "model.safetensors").is_file()
    assert base_name(make_spec({"model": POCKET})) == (str(pocket_model("language").resolve()), None)
    with pytest.raises(UserError, match=r"no pocket model 'langauge'\. Did you mean 'language'"):
        pocket_model("langauge")
