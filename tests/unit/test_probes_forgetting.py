"""Forgetting: losses on held-out pretraining data as another computation gives them, and as damage raises them."""

from functools import cache
from itertools import islice

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM

from eva_bench import models
from eva_bench.assets import catalogue
from eva_bench.probes import forgetting
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.errors import UserError
from eva_bench.system.paths import POCKET_WEIGHTS
from pocket.world import corpus, encoder_corpus
from tests.conftest import CONF

NAMES = ("language", "exam", "encoder", "vision", "decision")


def bundle_of(name: str):
    model = ModelSettings(**yaml.safe_load((CONF / "model" / f"pocket_{name}.yaml").read_text()))
    outputs = 3 if model.kind in ("classifier", "vision") else None
    return models.load(model, DataSettings(source="pocket"), "cpu", outputs)


@cache
def untouched(name: str) -> dict[str, float]:
    return measured(bundle_of(name), name)


def measured(bundle, name: str) -> dict[str, float]:
    return forgetting.measure(bundle, catalogue.pretraining_data(f"pocket_{name}"), POCKET_WEIGHTS / name)


def rows_of(name: str) -> list[dict]:
    return catalogue.load_rows(f"pocket/pretraining/{name}", "test")


@pytest.mark.parametrize("name", NAMES)
def test_damage_raises_the_loss_and_a_repetition_does_not(name):
    bundle = bundle_of(name)
    assert measured(bundle, name) == untouched(name)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for target in bundle.targets:
            weight = bundle.module.get_submodule(target).weight
            weight.add_(weight.std() * torch.randn(weight.shape, generator=generator))
    damaged = measured(bundle, name)
    assert damaged["forgetting/loss"] > 1.05 * untouched(name)["forgetting/loss"]
    assert damaged.get("forgetting/accuracy", 0) <= untouched(name).get("forgetting/accuracy", 1)


def test_next_tokens_as_the_model_itself_counts_them():
    bundle, total, count, right = bundle_of("language"), 0.0, 0, 0
    for row in rows_of("language"):
        ids = torch.tensor([[*bundle.processor(row["text"])["input_ids"], bundle.processor.eos_token_id]])
        with torch.no_grad():
            answer = bundle.module(input_ids=ids, labels=ids)
        total, count = total + float(answer.loss) * (ids.shape[1] - 1), count + ids.shape[1] - 1
        right += int((answer.logits[0, :-1].argmax(-1) == ids[0, 1:]).sum())
    assert untouched("language")["forgetting/loss"] == pytest.approx(total / count, rel=1e-5)
    assert untouched("language")["forgetting/accuracy"] == pytest.approx(right / count, abs=2 / count)


def test_long_texts_are_cut_into_pieces(monkeypatch):
    bundle, text = bundle_of("language"), " ".join(row["text"] for row in rows_of("language")[:6])
    ids = [*bundle.processor(text)["input_ids"], bundle.processor.eos_token_id]
    assert len(ids) > 100
    monkeypatch.setattr(forgetting, "WINDOW", 50)
    monkeypatch.setattr(forgetting, "load_rows", lambda *_: [{"text": text}])
    pieces = [torch.tensor([ids[start : start + 50]]) for start in range(0, len(ids), 50)]
    with torch.no_grad():
        losses = [float(bundle.module(input_ids=p, labels=p).loss) * (p.shape[1] - 1) for p in pieces if p.shape[1] > 1]
    expected = sum(losses) / sum(p.shape[1] - 1 for p in pieces)
    assert measured(bundle, "language")["forgetting/loss"] == pytest.approx(expected, rel=1e-5)


def test_masked_words_as_the_pretrained_model_restores_them():
    bundle = bundle_of("encoder")
    whole = AutoModelForMaskedLM.from_pretrained(POCKET_WEIGHTS / "encoder").eval()
    tokenizer, losses, masked_share = bundle.processor, [], []
    for index, row in enumerate(rows_of("encoder")):
        ids = tokenizer(row["text"], row["pair"])["input_ids"] if row["pair"] else tokenizer(row["text"])["input_ids"]
        draws = torch.rand(len(ids), generator=torch.Generator().manual_seed(index))
        labels = [t if t > 4 and d < 0.15 else -100 for t, d in zip(ids, draws.tolist(), strict=True)]
        shown = [4 if label != -100 else t for t, label in zip(ids, labels, strict=True)]  # 4 is <mask>
        with torch.no_grad():
            logits = whole(input_ids=torch.tensor([shown])).logits[0]
        losses += F.cross_entropy(logits, torch.tensor(labels), reduction="none")[torch.tensor(labels) != -100].tolist()
        masked_share.append(sum(label != -100 for label in labels) / len(labels))
    assert untouched("encoder")["forgetting/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert 0.08 < np.mean(masked_share) < 0.15
    # A tuned head of the classifier is not asked.
    torch.nn.init.normal_(bundle.module.classifier.out_proj.weight)
    assert measured(bundle, "encoder") == untouched("encoder")


def test_an_encoder_without_a_masked_word_head_is_not_asked(tmp_path):
    bundle = bundle_of("encoder")
    bundle.module.save_pretrained(tmp_path)  # with the head of a classifier, as a user's checkpoint may be
    assert forgetting.measure(bundle, "pocket/pretraining/encoder", tmp_path) == {}


def test_actions_of_the_experts():
    bundle, errors = bundle_of("decision"), []
    for row in rows_of("decision"):
        with torch.no_grad():
            predicted = bundle.module(**{name: torch.from_numpy(value)[None] for name, value in row.items()})
        errors += [((predicted.numpy()[0] - row["actions"]) ** 2).mean()]
    assert untouched("decision")["forgetting/loss"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert np.mean([row["actions"].var(0).mean() for row in rows_of("decision")]) > 0


def test_scenes_are_recognised_about_as_well_as_in_pretraining():
    assert untouched("vision")["forgetting/accuracy"] == pytest.approx(0.93, abs=0.04)  # manifest.json: 0.9305


def test_held_out_rows_are_none_of_pretraining():
    seen = set(islice(corpus.documents("train"), 20000))
    rows = [row["text"] for row in rows_of("language")]
    assert sum(text in seen for text in rows) < 0.2 * len(rows)  # short sums occur by chance
    pairs = set(islice(encoder_corpus.documents("train"), 20000))
    rows = [(row["text"], row["pair"]) for row in rows_of("encoder")]
    assert sum(pair in pairs for pair in rows) < 0.1 * len(rows)
    read = catalogue.load_rows("pocket/pretraining/language", "train")
    assert all(row["text"] in seen for row in read)  # what may be fitted to is what pretraining has read
    asked = [rows_of("exam"), catalogue.load_rows("pocket/pretraining/exam", "train")]
    assert {row["text"] for row in asked[0]}.isdisjoint(row["text"] for row in asked[1])
    scenes = [rows_of("vision"), catalogue.load_rows("pocket/pretraining/vision", "train")]
    assert not np.array_equal(*(np.stack([row["image"] for row in rows]) for rows in scenes))


def test_a_model_has_one_data_set_or_none():
    names = [model for info in catalogue.manifest().values() for model in info.get("pretraining_of", ())]
    assert len(names) == len(set(names))
    assert all((CONF / "model" / f"{name}.yaml").is_file() for name in names)
    assert catalogue.pretraining_data("llama2_7b") == "wikitext-2"
    assert catalogue.pretraining_data("dinov2_g14") is None


@pytest.fixture
def wiki(tmp_path) -> str:
    """A data root with a file in WikiText's layout."""
    lines = [
        "",
        " = First = \n",
        "",
        " One two . \n",
        " = = Part = = \n",
        " Three . \n",
        " = Second one = \n",
        " Four . \n",
    ]
    file = tmp_path / "Salesforce/wikitext/wikitext-2-raw-v1/test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": lines}), file)
    return str(tmp_path)


def test_wikitext_is_read_as_articles(wiki):
    rows = catalogue.load_rows("wikitext-2", "test", wiki)
    assert [row["text"] for row in rows] == [
        "= First = \n One two . \n = = Part = = \n Three .",
        "= Second one = \n Four .",
    ]
    bundle = bundle_of("language")
    found = forgetting.measure(bundle, "wikitext-2", POCKET_WEIGHTS / "language", wiki)
    assert found["forgetting/loss"] > untouched("language")["forgetting/loss"]


def test_absent_data_is_named_with_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match="make fetch DATA=wikitext-2"):
        forgetting.measure(bundle_of("language"), "wikitext-2", POCKET_WEIGHTS / "language", str(tmp_path))
