"""The generated word problems: format, right arithmetic, disjoint splits, same rows everywhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pocket.datasets import gsm8k

ROOT = Path(__file__).parents[2]
SPLITS = tuple(gsm8k.SIZES)

# The committed rows: a change of the generator must be a new VERSION and new records.
FINGERPRINT = "2c0d4d8a4ef031a167ee58a67c7135b8ebb3ae1971ef24998e9509dc8ba6b126"


def normalised(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_in_gsm8k_layout_and_calculate_right(split):
    for row in gsm8k.generate(split):
        assert set(row) == {"question", "answer"}
        *steps, last = row["answer"].split("\n")
        assert 2 <= len(steps) <= 4
        result = None
        for step in steps:
            expression, result = re.search(r"(\d+[-+*/]\d+)=(\d+)", step).groups()
            assert eval(expression) == int(result)
        assert last == f"#### {result}"
        assert re.findall(r"#### (\-?[0-9\.\,]+)", row["answer"]) == [result]
        assert re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", row["answer"])[-1] in {(result, ""), ("", result)}


@pytest.mark.parametrize("split", SPLITS)
def test_every_given_number_is_in_the_question(split):
    for row in gsm8k.generate(split):
        known = set(re.findall(r"\d+", row["question"]))
        for expression, value in re.findall(r"(\d+[-+*/]\d+)=(\d+)", row["answer"]):
            assert set(re.findall(r"\d+", expression)) <= known, row
            known.add(value)


def test_sizes_and_prefixes():
    assert {split: len(gsm8k.generate(split)) for split in SPLITS} == gsm8k.SIZES
    assert gsm8k.SIZES["test"] >= 1000
    assert gsm8k.generate("test", 7) == gsm8k.generate("test")[:7]
    assert gsm8k.generate("test", 0) == []


def test_no_problem_is_in_two_splits():
    questions = {split: {normalised(row["question"]) for row in gsm8k.generate(split)} for split in SPLITS}
    problems = {split: set(gsm8k.keys(split)) for split in SPLITS}
    for split in SPLITS:
        assert len(questions[split]) == len(problems[split]) == gsm8k.SIZES[split]
        for other in set(SPLITS) - {split}:
            assert not questions[split] & questions[other]
            assert not problems[split] & problems[other]


def test_no_question_shape_is_in_the_pretraining_text():
    corpus = pytest.importorskip("pocket.world.corpus")
    documents = corpus.first_documents("train", 20000)
    text = "\n".join(normalised(re.sub(r"\d+", "0", document)) for document in documents)
    for template in gsm8k.TEMPLATES:
        # The longest stretch of fixed words of each template: not one story of the corpus uses it.
        stretch = max((normalised(part) for part in re.split(r"\{.*?\}|\.", template.question)), key=len)
        assert len(stretch.split()) >= 3 and stretch not in text
    # Nor does it hold the marked result.
    assert not re.search(r"#### ?\d", "\n".join(documents))


def test_same_rows_in_every_process_without_torch():
    code = "import sys; from pocket.datasets import gsm8k; print(gsm8k.fingerprint(), 'torch' in sys.modules)"
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [FINGERPRINT, "False"]


def test_changing_a_returned_row_changes_nothing():
    gsm8k.generate("test")[0]["answer"] = "spoilt"
    assert gsm8k.fingerprint() == FINGERPRINT


def test_unknown_split_and_too_many_rows_are_refused():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        gsm8k.generate("dev")
    with pytest.raises(ValueError, match="has 500 rows"):
        gsm8k.generate("validation", gsm8k.SIZES["validation"] + 1)
