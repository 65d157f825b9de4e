"""Eight commonsense sets, one training on their union, answered by the likelihood of the answers' labels.

Prompts in the style of LLM-Adapters (Hu et al., arXiv:2304.01933) with the changes of the EVA paper
(arXiv:2410.07170v5, appendix B, Table 3): BoolQ comes with its passage, WinoGrande with a line that names the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from eva_bench.assets import catalogue
from eva_bench.models.bundle import ModelBundle
from eva_bench.settings.schema import DataSettings, TrainSettings
from eva_bench.system.errors import UserError
from eva_bench.task import Evaluation, Example, TrainData, task_config
from tasks.harness import choose
from tasks.language import LanguageTask, encode
from tasks.samples import constant_answer


@dataclass(frozen=True)
class Reader:
    """How a row of a set is read: columns that the prompt shows, answers to choose from, index of the right one."""

    columns: tuple[str, ...]
    answers: Callable[[dict], Sequence[str]]
    right: Callable[[dict], int]
    may_be_empty: tuple[str, ...] = ()


def _lettered(question: str) -> Reader:
    """ARC and OpenBookQA: three to five answers with labels of their own, letters or numbers."""
    return Reader(
        (question,),
        lambda row: row["choices"]["text"],
        lambda row: row["choices"]["label"].index(row["answerKey"].strip()),
    )


READERS = {
    "boolq": Reader(("passage", "question"), lambda row: (), lambda row: int(row["label"])),
    "piqa": Reader(("goal",), lambda row: (row["sol1"], row["sol2"]), lambda row: int(row["label"])),
    "siqa": Reader(
        ("context", "question"),
        lambda row: (row["answerA"], row["answerB"], row["answerC"]),
        lambda row: int(row["label"]) - 1,
    ),
    "hellaswag": Reader(
        ("activity_label", "ctx_a", "ctx_b"),
        lambda row: row["endings"],
        lambda row: int(row["label"]),
        ("ctx_a", "ctx_b"),
    ),
    "winogrande": Reader(
        ("sentence",), lambda row: (row["option1"], row["option2"]), lambda row: int(row["answer"]) - 1
    ),
    "arc_easy": _lettered("question"),
    "arc_challenge": _lettered("question"),
    "openbookqa": _lettered("question_stem"),
}


@task_config
class Commonsense(LanguageTask):
    """Zero-shot choice among labels (`answer1`, `true`, ...) that stand for the answers listed in the prompt.

    `format` has one block per set: `prompt` (a template over the row's columns, `{answers}` and `{labels}`), and either
    `word`, which numbers answers and labels (`Option1: ...`, `option1`), or `labels` themselves. `format.answer` is the
    template of what is trained on. The right label never stands in the prompt's own place of the answer.
    """

    harness: str | list[str]
    eval_prompt: str = ""

    def texts(self, rows: Sequence[dict], dataset: str) -> list[dict[str, Any]]:
        """Rows as {set, prompt, labels, label}; raises UserError naming rows that cannot be asked."""
        texts, unusable = [], {}
        for i, row in enumerate(rows):
            name = row.get("set") or catalogue.entry(dataset)["reader"]
            try:
                texts.append(self._text(name, row))
            except KeyError as error:
                raise UserError(f"Row {i} of '{dataset}' has no column {error}, which {name} needs.") from error
            except _Unusable as reason:
                unusable.setdefault(str(reason), []).append(i)
        if unusable:
            reasons = "; ".join(f"{reason}: rows {_named(found)}" for reason, found in unusable.items())
            raise UserError(f"{len(rows) - len(texts)} of {len(rows)} rows of '{dataset}' cannot be used: {reasons}.")
        return texts

    def _text(self, name: str, row: dict) -> dict[str, Any]:
        """Set, prompt, labels and the right label of a row."""
        reader, layout = READERS[name], self.format[name]
        columns = {column: row[column] for column in reader.columns}
        answers = list(reader.answers(row))
        if any(not _has_text(text) for column, text in columns.items() if column not in reader.may_be_empty):
            raise _Unusable("no text")
        try:
            right = reader.right(row)
        except (AttributeError, TypeError, ValueError):
            right = -1  # no label, or one that none of the answers has
        labels = layout.get("labels") or [f"{layout['word']}{i + 1}" for i in range(len(answers))]
        if not 0 <= right < len(labels):
            raise _Unusable("label outside its range")
        if answers and not (_has_text(answers[right]) and all(isinstance(answer, str) for answer in answers)):
            raise _Unusable("no text")
        listed = "\n".join(f"{label.capitalize()}: {answer}" for label, answer in zip(labels, answers, strict=False))
        columns |= {"ctx_b": columns["ctx_b"].capitalize()} if "ctx_b" in columns else {}
        prompt = layout["prompt"].format(**columns, answers=listed, labels="/".join(labels))
        return {"set": name, "prompt": prompt, "labels": labels, "label": labels[right]}

    def pair(self, text: dict[str, Any]) -> tuple[str, str]:
        """Prompt and the right label, as trained on."""
        return text["prompt"], self.format["answer"].format(**text)

    def train_data(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings, train: TrainSettings
    ) -> TrainData:
        """Prompts and labels, none longer than the model's context; see `Task.train_data`."""
        pairs = [self.pair(text) for text in self.texts(rows, dataset)]
        longest = min(data.max_length, bundle.module.config.max_position_embeddings)
        return encode(pairs, bundle.processor, longest, data.too_long, train.loss_on_prompt)

    def reference_examples(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings
    ) -> list[Example]:
        """None: the loss on the right labels comes from the likelihoods themselves."""
        return []

    def evaluate(self, bundle: ModelBundle, evaluation: Evaluation) -> list[dict]:
        """The likeliest label of every row; see `Task.evaluate`."""
        docs = [
            {"harness": f"commonsense_{text['set']}", "target": text["label"], **text}
            for text in self.texts(evaluation.rows, evaluation.dataset)
        ]
        return choose(bundle, docs, evaluation)

    def score(self, samples: Sequence[dict]) -> dict[str, float]:
        """Accuracy, chance and majority per set and the means of them; loss per right label; share of cut prompts.

        `collapsed` is the number of sets on which the model gives one answer only.
        """
        sets: dict[str, list[dict]] = {}
        for sample in samples:
            sets.setdefault(sample["harness"].removeprefix("commonsense_"), []).append(sample)
        scores = {name: mean(s["response"] == s["target"] for s in found) for name, found in sorted(sets.items())}
        chances = {name: mean(1 / len(s["labels"]) for s in found) for name, found in sorted(sets.items())}
        majorities = {
            name: constant_answer([s["target"] for s in found])["majority"] for name, found in sorted(sets.items())
        }
        loss = mean(-s["loglikelihoods"][s["labels"].index(s["target"])] for s in samples)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss on the right labels is {loss}")
        return {
            **{f"{name}/accuracy": score for name, score in scores.items()},
            **{f"{name}/chance": chance for name, chance in chances.items()},
            **{f"{name}/majority": share for name, share in majorities.items()},
            "mean": mean(scores.values()),
            "mean_chance": mean(chances.values()),
            "majority": mean(majorities.values()),
            "collapsed": sum(len({s["response"] for s in found}) == 1 < len(found) for found in sets.values()),
            "reference_loss": loss,
            "truncated": mean(s["truncated"] for s in samples),
        }


class _Unusable(Exception):
    """A row that cannot be asked; the message says why."""


def _has_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _named(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
