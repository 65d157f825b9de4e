"""The eight generated sets: fixed, apart, balanced as said, and with the labels that their texts deserve."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest

from pocket.datasets import glue
from pocket.datasets.glue import SIZES, SUBSETS, generate
from tests.conftest import ROOT
from tests.unit.test_glue import task

TEXTS = {name: task(name).format["columns"] for name in SUBSETS}


def texts(split: str, subset: str) -> list[tuple]:
    return [tuple(row[column] for column in TEXTS[subset]) for row in generate(split, subset)]


def test_there_is_a_generator_for_every_task():
    from tests.unit.test_glue import TASKS

    assert sorted(SUBSETS) == TASKS


@pytest.mark.parametrize("subset", SUBSETS)
def test_sizes_columns_and_labels(subset):
    kind = task(subset)
    for split, size in SIZES.items():
        rows = generate(split, subset)
        assert len(rows) == size
        for row in rows:
            assert all(isinstance(row[c], str) and row[c] == row[c].strip() for c in TEXTS[subset])
            assert all(row[c][0].isupper() and row[c][-1] in ".?" and "  " not in row[c] for c in TEXTS[subset])
        labels = Counter(row["label"] for row in rows)
        if kind.classes == 1:
            assert all(0 <= label <= 5 for label in labels) and 0 in labels and 5 in labels
        else:
            assert set(labels) == set(range(kind.classes))
            assert max(labels.values()) / size < {"cola": 0.7, "mrpc": 0.67, "qqp": 0.67}.get(subset, 0.6)


@pytest.mark.parametrize("subset", SUBSETS)
def test_no_text_is_in_two_splits_or_twice_in_one(subset):
    sets = {split: texts(split, subset) for split in SIZES}
    assert all(len(set(rows)) == len(rows) for rows in sets.values())
    assert not set(sets["train"]) & (set(sets["validation"]) | set(sets["test"]))
    assert not set(sets["validation"]) & set(sets["test"])


def test_fingerprints_do_not_depend_on_the_process_and_differ_between_sets():
    command = "import sys; from pocket.datasets import glue; print(*[glue.fingerprint(s) for s in glue.SUBSETS]); "
    command += "assert 'torch' not in sys.modules"  # planning a suite does without it
    out = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    here = [glue.fingerprint(subset) for subset in SUBSETS]
    assert out.split() == here and len(set(here)) == len(here)


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        generate("dev", "cola")


def test_mismatched_rows_are_half_of_the_evaluation_and_about_other_things():
    from pocket.datasets.glue_inference import OTHER_THINGS

    rows = generate("test", "mnli")
    assert Counter(row["part"] for row in rows) == {"matched": 1000, "mismatched": 1000}
    train = " ".join(" ".join(pair) for pair in texts("train", "mnli"))
    for row in rows:
        assert any(f" {thing} " in f" {row['premise'].rstrip('.')} " for thing in OTHER_THINGS) == (
            row["part"] == "mismatched"
        )
    assert not any(f" {thing} " in train.replace(".", " ") for thing in OTHER_THINGS)


def test_denial_turns_praise_round():
    from pocket.world.opinions import BLAME, PRAISE, judgement

    rng = random.Random(0)
    for _ in range(300):
        good = rng.random() < 0.5
        words = judgement(good, rng).split()
        denied = bool({"not", "never", "far", "hardly"} & set(words)) and "again" not in words
        if words[-1] in PRAISE or words[-1] in BLAME or words[-3:-1] == ["at", "all"]:
            word = words[-3] if words[-1] == "all" else words[-1]
            if word in PRAISE or word in BLAME:
                assert ((word in PRAISE) != denied) == good


def test_words_alone_do_not_give_the_answer_away():
    """A bag of words is near the most frequent answer where word order or the other text decides."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    for subset in ("mrpc", "qnli", "rte"):
        train, test = (generate(split, subset) for split in ("train", "test"))
        joined = [[" ".join(row[c] for c in TEXTS[subset]) for row in rows] for rows in (train, test)]
        vectors = CountVectorizer(binary=True).fit(joined[0])
        model = LogisticRegression(max_iter=300, C=0.1).fit(
            vectors.transform(joined[0]), [row["label"] for row in train]
        )
        accuracy = model.score(vectors.transform(joined[1]), [row["label"] for row in test])
        most = max(Counter(row["label"] for row in test).values()) / len(test)
        assert accuracy < most + 0.15, subset


def test_the_encoder_is_what_its_manifest_says():
    import hashlib
    import json

    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = ROOT / "pocket/weights/encoder"
    facts = json.loads((folder / "manifest.json").read_text())
    for name, digest in facts["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.num_parameters() == facts["parameters"] < 1_200_000
    assert (
        tokenizer.decode(tokenizer("Straße, ☃ and 12!", add_special_tokens=False)["input_ids"]) == "Straße, ☃ and 12!"
    )
    pair = tokenizer("Anna found a book.", "The book was <mask> by Anna.", return_tensors="pt")
    at = pair["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    assert tokenizer.decode(model(**pair).logits[0, at].argmax()) == " found"
