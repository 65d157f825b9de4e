"""GLUE's metrics on perfect, wrong, constant and adversarial answers; rows that cannot be used; truncation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from eva_bench.models.bundle import ModelBundle
from eva_bench.models.classifier import context_length
from eva_bench.system.errors import UserError
from eva_bench.task import Evaluation
from tasks.glue_metrics import glue_scores
from tests.checkpoints import KINDS, write_checkpoint
from tests.conftest import CONF
from tests.settings import data_settings, eval_settings, make_task, train_settings

TASKS = sorted(path.stem for path in (CONF / "task" / "glue").glob("*.yaml"))


def task(name: str):
    return make_task(yaml.safe_load((CONF / "task" / "glue" / f"{name}.yaml").read_text()))


def answered(labels, predictions, classes: int = 2, parts=None) -> list[dict]:
    """Samples with outputs that fit the predictions."""
    samples = []
    for i, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        outputs = [prediction] if classes == 1 else [2.0 * (c == prediction) for c in range(classes)]
        part = parts[i] if parts else None
        samples.append(
            {"label": label, "prediction": prediction, "outputs": outputs, "truncated": i == 0, "part": part}
        )
    return samples


LABELS = [0, 1, 1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize("name", TASKS)
def test_perfect_answers_score_one(name):
    kind = task(name)
    labels = [0.0, 1.5, 2.0, 4.0, 5.0, 3.0] if kind.classes == 1 else [i % kind.classes for i in range(12)]
    parts = ["matched", "matched", "mismatched"] * 4 if name == "mnli" else None
    scores = kind.score(answered(labels, labels, kind.classes, parts))
    assert all(scores[metric] == pytest.approx(1) for metric in kind.metrics)
    assert kind.primary in scores and scores["collapsed"] == 0


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_answers_are_0_for_matthews_and_counted_as_collapsed(constant):
    scores = glue_scores(answered(LABELS, [constant] * 8), ("matthews", "accuracy", "f1"), regression=False)
    assert scores["matthews"] == 0 and scores["collapsed"] == 1
    assert scores["accuracy"] == pytest.approx(5 / 8 if constant else 3 / 8)
    assert scores["majority"] == 0  # of Matthews
    shares = torch.tensor([3 / 8, 5 / 8])
    assert scores["constant_loss"] == pytest.approx(float(torch.distributions.Categorical(shares).entropy()))
    assert glue_scores(answered(LABELS, LABELS), ("accuracy",), regression=False)["majority"] == 5 / 8
    assert scores["f1"] == pytest.approx(10 / 13 if constant else 0)


@pytest.mark.parametrize("value", [0.0, 2.5, 1e6, 2.5 + 1e-9])
def test_a_constant_degree_correlates_with_nothing(value):
    predictions = [value] * 7 + [value * (1 + 1e-9)]
    scores = glue_scores(
        answered([0.5 * i for i in range(8)], predictions, 1), ("pearson", "spearman"), regression=True
    )
    assert scores["pearson"] == scores["spearman"] == 0 and scores["collapsed"] == 1


def test_metrics_against_their_definitions():
    rng = random.Random(0)
    labels, predictions = [rng.randrange(2) for _ in range(200)], [rng.randrange(2) for _ in range(200)]
    scores = glue_scores(answered(labels, predictions), ("matthews", "accuracy", "f1"), regression=False)
    tp = sum(a and b for a, b in zip(labels, predictions, strict=True))
    tn = sum(not a and not b for a, b in zip(labels, predictions, strict=True))
    fp, fn = sum(predictions) - tp, sum(labels) - tp
    assert scores["accuracy"] == pytest.approx((tp + tn) / 200)
    assert scores["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    wanted = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert scores["matthews"] == pytest.approx(wanted)

    degrees, guesses = [rng.uniform(0, 5) for _ in range(50)], [rng.uniform(0, 5) for _ in range(50)]
    scores = glue_scores(answered(degrees, guesses, 1), ("pearson", "spearman"), regression=True)
    assert scores["pearson"] == pytest.approx(np.corrcoef(degrees, guesses)[0, 1])
    ranks = [stats.rankdata(values) for values in (degrees, guesses)]
    assert scores["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert scores["reference_loss"] == pytest.approx(np.mean((np.array(degrees) - np.array(guesses)) ** 2))


def test_wrong_answers_and_the_share_of_truncated_rows():
    scores = glue_scores(
        answered(LABELS, [1 - label for label in LABELS]), ("matthews", "accuracy", "f1"), regression=False
    )
    assert (scores["matthews"], scores["accuracy"], scores["f1"]) == (-1, 0, 0)
    assert scores["truncated"] == 1 / 8
    assert scores["reference_loss"] == pytest.approx(math.log(math.exp(2) + 1))  # logits 0 and 2, the wrong way round


def test_matched_and_mismatched_rows_are_scored_apart():
    labels, predictions = [0, 1, 2, 0], [0, 1, 0, 1]
    parts = ["matched", "matched", "mismatched", "mismatched"]
    scores = task("mnli").score(answered(labels, predictions, 3, parts))
    assert (scores["accuracy_matched"], scores["accuracy_mismatched"]) == (1, 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> ModelBundle:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = write_checkpoint("roberta_base", tmp_path_factory.mktemp("roberta"))
    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    return ModelBundle(module, AutoTokenizer.from_pretrained(folder), (), "classifier")


def rows(**changes) -> list[dict]:
    start = [
        {"sentence1": "Anna has 3 books.", "sentence2": "Books are there.", "label": i % 2, "idx": i} for i in range(8)
    ]
    start[5] |= changes
    return start


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentence2": None}, "1 of 8 rows of 'x' have no text: rows 5."),
        ({"sentence1": None}, "have no text: rows 5"),
        ({"label": 2}, r"label outside 0 to 1, whole numbers \(the first is 2\): rows 5"),
        ({"label": -1}, r"label outside 0 to 1, whole numbers \(the first is -1\)"),
        ({"label": 0.5}, "the first is 0.5"),
        ({"label": None}, "the first is None"),
        ({"label": "1"}, "the first is '1'"),
        ({"label": True}, "the first is True"),
    ],
)
def test_rows_that_cannot_be_used_are_named(changes, message, bundle):
    with pytest.raises(UserError, match=message):
        task("rte").encode(rows(**changes), "x", bundle, 128)


@pytest.mark.parametrize("column", ["sentence1", "sentence2", "label"])
def test_a_missing_column_is_named(column, bundle):
    short = [{key: value for key, value in row.items() if key != column} for row in rows()]
    with pytest.raises(UserError, match=f"'x' has no column '{column}'; it has"):
        task("rte").encode(short, "x", bundle, 128)


def test_degrees_may_be_broken_numbers_up_to_the_largest(bundle):
    task("stsb").encode(rows(label=4.999), "x", bundle, 128)
    for label in (5.001, -0.1, float("nan")):
        with pytest.raises(UserError, match="label outside 0 to 5"):
            task("stsb").encode(rows(label=label), "x", bundle, 128)


def test_long_texts_lose_tokens_of_the_longer_one_and_are_counted(bundle):
    long, short = " ".join(f"word {i}" for i in range(200)), "A short text."
    data = [{"sentence1": long, "sentence2": short, "label": 0}, {"sentence1": short, "sentence2": short, "label": 1}]
    assert context_length(bundle) == 128  # 130 positions, of which RoBERTa skips two
    for limit, expected in ((64, 64), (1000, 128), (None, 128)):
        examples = task("rte").encode(data, "x", bundle, limit)
        assert len(examples[0]["input_ids"]) == expected and [e["truncated"] for e in examples] == [True, False]
        second = bundle.processor(short, add_special_tokens=False)["input_ids"]
        assert examples[0]["input_ids"][-len(second) - 1 : -1] == second  # the short text is whole
    batch = task("rte").collate(examples, bundle)
    batch.pop("labels")
    assert torch.isfinite(bundle.module(**batch).logits).all()
    facts = task("rte").train_data(data, "x", bundle, data_settings(max_length=64), train_settings()).facts
    assert facts == {"rows": 2, "truncated": 1, "dropped": 0}


def test_padding_changes_no_answer(bundle, tmp_path):
    data = [{"sentence1": "Ben counts. " * (1 + i % 5), "sentence2": "He counts.", "label": i % 2} for i in range(10)]
    settings = data_settings(max_length=128)
    one_by_one, batched = (
        task("rte").evaluate(
            bundle,
            Evaluation(
                data,
                "x",
                eval_settings(batch_size=size, chunk=4),
                settings,
                tmp_path / f"{size}.jsonl",
                lambda *_: None,
            ),
        )
        for size in (1, 10)
    )
    assert [s["row"] for s in batched] == list(range(10))
    for a, b in zip(one_by_one, batched, strict=True):
        assert a["outputs"] == pytest.approx(b["outputs"], abs=1e-5) and a["label"] == b["label"]


def test_all_encoders_of_the_recipes_have_a_small_checkpoint():
    found = [yaml.safe_load(path.read_text()) for path in (CONF / "model").glob("*.yaml")]
    assert {m["name"] for m in found if m["kind"] == "classifier" and m.get("hub_id")} <= set(KINDS)
