"""Commonsense: prompts, reading of rows, labels by likelihood, scores from samples alone, the union of the sets."""

from __future__ import annotations

import hashlib
import json
from functools import partial

import jinja2
import pytest
import torch
import yaml

from eva_bench import models
from eva_bench.assets import catalogue
from eva_bench.run.fetch import FetchArguments, needs
from eva_bench.system.errors import UserError
from eva_bench.task import Evaluation
from pocket.datasets import commonsense as pocket
from tasks.commonsense import READERS, Commonsense
from tests.checkpoints import write_checkpoint
from tests.conftest import CONF
from tests.settings import data_settings, eval_settings, model_settings, train_settings

ARC = {
    "question": "What melts?",
    "choices": {"text": ["ice", "stone", "sand"], "label": ["A", "B", "C"]},
    "answerKey": "A",
}
ROWS = {
    "boolq": {"passage": "Ice is cold.", "question": "is ice cold", "label": 1},
    "piqa": {"goal": "To cut bread,", "sol1": "use a knife.", "sol2": "use a cup.", "label": 0},
    "siqa": {
        "context": "Ann fell.",
        "question": "How is she?",
        "answerA": "fine",
        "answerB": "hurt",
        "answerC": "late",
        "label": "2",
    },
    "hellaswag": {
        "activity_label": "Baking",
        "ctx_a": "She mixes flour.",
        "ctx_b": "then she",
        "ctx": "She mixes flour. then she",
        "endings": ["sleeps.", "swims.", "bakes.", "sings."],
        "label": "2",
    },
    "winogrande": {
        "sentence": "The cup fits into the box as the _ is small.",
        "option1": "cup",
        "option2": "box",
        "answer": "1",
    },
    "arc_easy": ARC,
    "arc_challenge": ARC | {"choices": {"text": list("vwxyz"), "label": list("12345")}, "answerKey": "5"},
    "openbookqa": {
        "question_stem": "A seed",
        "choices": {"text": ["grows", "sings", "reads", "melts"], "label": list("ABCD")},
        "answerKey": "D ",
    },
}
FORMAT_SHA256 = "f08460edaae30ad1c7b36ff9589a183f4f1e8fd752ff3ff5aa11bf0570abc271"


def values() -> dict:
    return yaml.safe_load((CONF / "task/commonsense.yaml").read_text())


@pytest.fixture(scope="module")
def task() -> Commonsense:
    return Commonsense(**{key: value for key, value in values().items() if key != "_target_"})


def read(task, name: str, **changes) -> dict:
    (text,) = task.texts([{"set": name, **ROWS[name], **changes}], "commonsense")
    return text


def test_a_change_of_any_prompt_is_a_new_version():
    text = json.dumps(values()["format"], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == FORMAT_SHA256


@pytest.mark.parametrize(
    ("name", "prompt", "label"),
    [
        (
            "boolq",
            "Passage: Ice is cold.\nAfter reading this passage, please answer the following question with "
            "true or false, question: is ice cold\nAnswer format: true/false\nThe correct answer is",
            "true",
        ),
        (
            "piqa",
            "Please choose the correct solution to the question: To cut bread,\nSolution1: use a knife.\n"
            "Solution2: use a cup.\nAnswer format: solution1/solution2\nThe correct answer is",
            "solution1",
        ),
        (
            "siqa",
            "Please choose the correct answer to the question: Ann fell. How is she?\n"
            "Answer1: fine\nAnswer2: hurt\nAnswer3: late\n"
            "Answer format: answer1/answer2/answer3\nThe correct answer is",
            "answer2",
        ),
        (
            "hellaswag",
            "Please choose the correct ending to complete the given sentence: Baking: She mixes flour. Then she\n"
            "Ending1: sleeps.\nEnding2: swims.\nEnding3: bakes.\nEnding4: sings.\n"
            "Answer format: ending1/ending2/ending3/ending4\nThe correct answer is",
            "ending3",
        ),
        (
            "winogrande",
            "Please choose the correct answer to fill in the blank to complete the given sentence: The cup fits "
            "into the box as the _ is small.\n"
            "Option1: cup\nOption2: box\nAnswer format: option1/option2\nThe correct answer is",
            "option1",
        ),
        (
            "arc_easy",
            "Please choose the correct answer to the question: What melts?\n"
            "Answer1: ice\nAnswer2: stone\nAnswer3: sand\n"
            "Answer format: answer1/answer2/answer3\nThe correct answer is",
            "answer1",
        ),
    ],
)
def test_prompts_and_right_labels(task, name, prompt, label):
    text = read(task, name)
    assert (text["prompt"], text["label"]) == (prompt, label)
    assert task.pair(text) == (prompt, f" {label}")


def test_numbered_and_lettered_labels_of_three_to_five_answers(task):
    assert read(task, "arc_challenge")["label"] == "answer5"
    assert read(task, "openbookqa")["label"] == "answer4"
    assert read(task, "boolq", label=0)["label"] == "false"
    assert read(task, "hellaswag", ctx_b="")["label"] == "ending3"  # rows from manuals have no second half


def test_every_set_has_a_reader_a_format_a_task_a_harness_file_and_two_sources():
    assert list(READERS) == list(pocket.SETS) == [name for name in values()["format"] if name != "answer"]
    assert values()["harness"] == [f"commonsense_{name}" for name in READERS]
    assert catalogue.entry("commonsense")["parts"] == [f"commonsense/{name}" for name in READERS]
    for name in READERS:
        single = yaml.safe_load((CONF / f"task/commonsense/{name}.yaml").read_text())
        assert single["name"] == single["dataset"] == f"commonsense/{name}" and single["primary"] == f"{name}/accuracy"
        assert single["harness"] == f"commonsense_{name}" and catalogue.entry(single["pocket"])["subset"] == name
        assert catalogue.entry(single["dataset"])["reader"] == name


def test_fetching_the_task_fetches_all_eight_sets():
    found = needs(FetchArguments(task="commonsense", scale="paper"))
    datasets = [*(f"commonsense/{name}" for name in READERS), "wikitext-2"]  # the last for forgetting
    assert found.datasets == datasets and list(found.models) == ["llama2_7b"]
    assert needs(FetchArguments(task="commonsense/boolq", scale="lite")).datasets == found.datasets


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("boolq", {"label": 2}, "label outside its range"),
        ("boolq", {"label": -1}, "label outside its range"),
        ("piqa", {"label": None}, "label outside its range"),
        ("siqa", {"label": "0"}, "label outside its range"),
        ("siqa", {"label": ""}, "label outside its range"),
        ("hellaswag", {"label": "4"}, "label outside its range"),
        ("winogrande", {"answer": "3"}, "label outside its range"),
        ("arc_easy", {"answerKey": "D"}, "label outside its range"),
        ("arc_easy", {"answerKey": None}, "label outside its range"),
        ("boolq", {"passage": "  "}, "no text"),
        ("winogrande", {"sentence": None}, "no text"),
        ("piqa", {"sol1": ""}, "no text"),
        ("piqa", {"sol2": None}, "no text"),
    ],
)
def test_rows_that_cannot_be_asked_are_counted_and_named(task, name, changes, reason):
    rows = [{"set": name, **ROWS[name]}, {"set": name, **ROWS[name], **changes}]
    with pytest.raises(UserError) as refusal:
        task.texts(rows, "commonsense")
    assert f"1 of 2 rows of 'commonsense' cannot be used: {reason}: rows 1." == str(refusal.value)


@pytest.mark.parametrize("name", ROWS)
def test_a_missing_column_is_named(task, name):
    for column in ROWS[name].keys() - {"ctx"}:  # HellaSwag's third column repeats the other two
        row = {key: value for key, value in ROWS[name].items() if key != column}
        with pytest.raises(UserError, match=rf"Row 0 of 'commonsense/{name}' has no column '{column}'"):
            task.texts([row], f"commonsense/{name}")


def sample(name: str, target: int, response: int, options: int = 2, **more) -> dict:
    labels = [f"answer{i}" for i in range(options)]
    likelihoods = [-2.0] * options
    return {"harness": f"commonsense_{name}", "labels": labels, "target": labels[target], "response": labels[response],
            "loglikelihoods": likelihoods, "truncated": False} | more  # fmt: skip


def test_scores_are_means_over_sets_not_over_rows(task):
    samples = [
        sample("piqa", 0, 0),
        sample("siqa", 0, 0, 3),
        sample("siqa", 0, 1, 3, truncated=True),
        sample("siqa", 2, 1, 4),
    ]
    scores = task.score(samples)
    assert scores["piqa/accuracy"] == 1 and scores["siqa/accuracy"] == pytest.approx(1 / 3)
    assert scores["mean"] == pytest.approx(2 / 3)
    assert scores["siqa/chance"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 4) / 3) and scores["piqa/chance"] == 0.5
    assert scores["mean_chance"] == pytest.approx((0.5 + scores["siqa/chance"]) / 2)
    assert (scores["truncated"], scores["reference_loss"]) == (0.25, 2.0)
    assert scores["siqa/majority"] == pytest.approx(2 / 3) and scores["majority"] == pytest.approx(5 / 6)
    assert scores["collapsed"] == 0
    assert task.score([sample("siqa", i % 3, 1, 3) for i in range(6)])["collapsed"] == 1
    assert task.score(samples[::-1]) == pytest.approx(scores)


def test_perfect_and_wrong_answers(task):
    assert task.score([sample("piqa", i % 2, i % 2) for i in range(4)])["mean"] == 1
    assert task.score([sample("piqa", i % 2, 1 - i % 2) for i in range(4)])["mean"] == 0


def test_likelihoods_that_are_no_numbers_are_a_failure_not_a_score(task):
    with pytest.raises(FloatingPointError):
        task.score([sample("piqa", 0, 0, loglikelihoods=[float("nan"), -1.0])])


@pytest.fixture(scope="module", params=["smollm2_135m", "llama2_7b", "gemma2_9b"])  # byte-level; two of sentencepiece
def bundle(request, tmp_path_factory):
    folder = write_checkpoint(request.param, tmp_path_factory.mktemp(request.param))
    return models.load(model_settings(request.param, folder), data_settings(), "cpu")


def direct(bundle, prompt: str, label: str) -> float:
    """Log-likelihood of a label's tokens behind the prompt, one forward pass, no padding."""
    tokenizer = bundle.processor
    whole, n = tokenizer(f"{prompt} {label}")["input_ids"], len(tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        likelihoods = bundle.module(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(likelihoods[i - 1, whole[i]].item() for i in range(n, len(whole)))


def test_likelihoods_are_those_of_the_tokens_that_training_sees(task, bundle, tmp_path):
    rows = [{"set": name, **row} for name, row in ROWS.items()]
    settings = (eval_settings(batch_size=3, chunk=5), data_settings())
    shown: list[tuple[int, int]] = []
    show = lambda *counts: shown.append(counts)  # noqa: E731
    asked = partial(Evaluation, rows, "commonsense", *settings, tmp_path / "samples.jsonl")
    samples = task.evaluate(bundle, asked(show))
    assert shown.count((5, 8)) == shown.count((8, 8)) == 2  # the last batch of a chunk, and its end
    assert any(0 < done < 5 for done, _ in shown)
    assert [s["row"] for s in samples] == list(range(8)) and not any(s["truncated"] for s in samples)
    for text, answered in zip(task.texts(rows, "commonsense"), samples, strict=True):
        wanted = [direct(bundle, text["prompt"], label) for label in text["labels"]]
        assert answered["loglikelihoods"] == pytest.approx(wanted, abs=2e-4)
        assert answered["response"] == text["labels"][wanted.index(max(wanted))]
        assert answered["target"] == text["label"]
        trained = bundle.processor("".join(task.pair(text)))["input_ids"]
        assert trained == bundle.processor(f"{text['prompt']} {text['label']}")["input_ids"]
    again = task.evaluate(bundle, asked(lambda *_: None))
    assert again == samples  # read back, not answered again


def test_templates_are_compiled_once_and_texts_encoded_once(task, bundle, tmp_path, monkeypatch):
    compiled, encoded = [], []
    compile_template, encode = jinja2.Environment.compile, bundle.processor.encode

    def compile_counted(self, source, *args, **kwargs):
        compiled.append(source)
        return compile_template(self, source, *args, **kwargs)

    def encode_counted(text, **kwargs):
        encoded.append(text)
        return encode(text, **kwargs)

    monkeypatch.setattr(jinja2.Environment, "compile", compile_counted)
    monkeypatch.setattr(bundle.processor, "encode", encode_counted)
    rows = [{"set": "boolq", **ROWS["boolq"], "passage": f"Ice is {degrees} degrees cold."} for degrees in range(6)]
    settings = (eval_settings(batch_size=2, chunk=3), data_settings())
    task.evaluate(bundle, Evaluation(rows, "commonsense", *settings, tmp_path / "samples.jsonl", lambda *_: None))
    assert len(compiled) == len(set(compiled))
    assert len(encoded) == len(set(encoded)) == 6 * 3  # a prompt, alone and with each of two labels


def test_a_prompt_longer_than_the_context_loses_its_beginning_and_is_counted(task, bundle, tmp_path):
    long = ROWS["boolq"] | {"passage": "Ice is cold. " * 600}
    rows = [{"set": "boolq", **long}, {"set": "boolq", **long, "passage": "Stones are hard. " + long["passage"]}]
    settings = (eval_settings(batch_size=2, chunk=2), data_settings())
    asked = Evaluation(rows, "commonsense", *settings, tmp_path / "samples.jsonl", lambda *_: None)
    first, second = task.evaluate(bundle, asked)
    assert first["truncated"] and second["truncated"]
    assert first["loglikelihoods"] == pytest.approx(second["loglikelihoods"], abs=1e-4)  # what differs was cut off
    assert task.score([first, second])["truncated"] == 1


def test_training_examples_that_do_not_fit_are_left_out_and_counted(task, bundle):
    rows = [{"set": "boolq", **ROWS["boolq"]}, {"set": "boolq", **ROWS["boolq"], "passage": "Ice is cold. " * 600}]
    data = data_settings(max_length=10**6, too_long="drop")  # the model's own context is shorter
    encoded = task.train_data(rows, "commonsense", bundle, data, train_settings())
    assert encoded.facts == {"rows": 2, "truncated": 0, "dropped": 1}


def test_the_loss_is_on_the_label_alone_unless_asked(task, bundle):
    rows = [{"set": "piqa", **ROWS["piqa"]}]
    data = data_settings(max_length=1024, too_long="drop")
    answer, whole = (
        task.train_data(rows, "commonsense", bundle, data, train_settings(loss_on_prompt=on)).examples[0]
        for on in (False, True)
    )
    tokenizer = bundle.processor
    counted = [i for i, label in zip(answer["input_ids"], answer["labels"], strict=True) if label != -100]
    assert tokenizer.decode(counted[:-1]).strip() == "solution1" and counted[-1] == tokenizer.eos_token_id
    assert task.loss_count(whole) > 3 * task.loss_count(answer)


def test_the_union_marks_rows_with_their_set_and_names_what_is_absent(tmp_path):
    from tests.e2e.test_commonsense import write_sets

    write_sets(tmp_path, ["winogrande", "arc_easy"])
    with pytest.raises(UserError) as refusal:
        catalogue.load_rows("commonsense", "train", str(tmp_path))
    sentence = str(refusal.value)
    assert "commonsense/boolq, commonsense/piqa" in sentence and "commonsense/winogrande," not in sentence
    assert "make fetch DATA=commonsense" in sentence and "data.train=" in sentence

    write_sets(tmp_path, list(READERS))
    rows = catalogue.load_rows("commonsense", "train", str(tmp_path))
    assert {row["set"] for row in rows[-20:]} > {"boolq", "arc_easy"}  # rows kept aside come from all sets
    assert rows == catalogue.load_rows("commonsense", "train", str(tmp_path))
    assert sum(row["set"] == "siqa" for row in catalogue.load_rows("commonsense", "test", str(tmp_path))) == 12
