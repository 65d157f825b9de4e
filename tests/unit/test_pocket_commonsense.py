"""The generated commonsense questions: real columns, right answers in all positions, disjoint and fixed splits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from pocket.datasets import commonsense
from pocket.world.worlds import FACTS
from tasks.commonsense import READERS
from tests.conftest import ROOT

# The committed rows: a change of the generator must be a new VERSION and new records.
FINGERPRINT = "1323a7aeb1a1ca074cc02c56507b9ab6a661376591d834de7e3239349fa1cd52"
COLUMNS = {
    "boolq": {"question", "passage", "idx", "label"},
    "piqa": {"goal", "sol1", "sol2", "label"},
    "siqa": {"context", "question", "answerA", "answerB", "answerC", "label"},
    "hellaswag": {"ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "label"},
    "winogrande": {"sentence", "option1", "option2", "answer"},
    "arc_easy": {"id", "question", "choices", "answerKey"},
    "arc_challenge": {"id", "question", "choices", "answerKey"},
    "openbookqa": {"id", "question_stem", "choices", "answerKey"},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_have_the_real_columns_and_their_right_answers_stand_everywhere(name):
    reader, places = READERS[name], Counter()
    for row in commonsense.generate("train", name) + commonsense.generate("test", name):
        assert row.keys() == COLUMNS[name] | {"set"} and row["set"] == name
        answers = reader.answers(row) or ("false", "true")
        assert len(set(answers)) == len(answers)
        places[(len(answers), reader.right(row))] += 1
    most = max(n for n, _ in places)
    common = [count for (n, _), count in places.items() if n == min(most, 4)]
    assert len(common) == min(most, 4) and max(common) < 1.4 * min(common)


@pytest.mark.parametrize("name", COLUMNS)
def test_no_question_of_one_split_is_in_another(name):
    splits = [set(commonsense.keys(split, name)) for split in commonsense.SIZES]
    assert not (splits[0] & splits[1] or splits[0] & splits[2] or splits[1] & splits[2])
    for split in commonsense.SIZES:
        assert len(commonsense.generate(split, name)) == commonsense.size(name, split)


def test_answers_are_right():
    for row in commonsense.generate("test", "winogrande"):
        tool = row[f"option{row['answer']}"]
        assert row["sentence"].endswith(f"to {FACTS[tool][3]}.")
    for row in commonsense.generate("test", "boolq"):
        thing = next(word for word in row["question"].split() if word in FACTS)
        kind, material, place, use, *_ = FACTS[thing]
        said = row["question"].partition(f"{thing} ")[2]
        true = {"is": (kind, f"made of {material}"), "do": (place,), "can": (use,)}[row["question"].split()[0]]
        assert row["label"] == (said in true)


def test_the_union_holds_every_row_once():
    union = commonsense.generate("validation")
    assert len(union) == 8 * commonsense.SIZES["validation"]
    for name in COLUMNS:
        assert sorted(map(str, commonsense.generate("validation", name))) == sorted(
            str(r) for r in union if r["set"] == name
        )


def test_rows_are_the_same_in_every_process():
    assert commonsense.fingerprint() == FINGERPRINT
    code = "from pocket.datasets import commonsense; print(commonsense.fingerprint())"
    env = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == FINGERPRINT


def test_unknown_splits_and_sets_are_refused():
    with pytest.raises(ValueError, match="unknown split"):
        commonsense.generate("dev", "boolq")
    with pytest.raises(ValueError, match="unknown set"):
        commonsense.generate("train", "boolqq")
