"""What GSM8K and MATH share: rows of every mathematical data set, read the same way by both.

So one training set (MetaMathQA, or its pocket stand-in) gives both tasks the same examples, the same adapter and the
same fingerprint of training: a run of the second task finds the adapter of the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from eva_bench.assets import catalogue
from eva_bench.models.bundle import ModelBundle
from eva_bench.system.errors import UserError
from eva_bench.task import Evaluation, task_config
from tasks.harness import generate
from tasks.language import LanguageTask
from tasks.math_answers import last_boxed
from tasks.rows import refuse_missing, refuse_other_than_text


def _last(pattern: str) -> Callable[[str], str | None]:
    compiled = re.compile(pattern)
    return lambda text: next(iter(compiled.findall(text)[-1:]), None)


@dataclass(frozen=True)
class Reader:
    """Where a data set keeps what; `needed`: a row without a final answer is an error, not only a row to train on."""

    question: str
    answer: str
    final: Callable[[str], str | None]
    needed: bool


READERS = {  # by the manifest's `reader`
    "gsm8k": Reader("question", "answer", _last(r"####\s*(\S.*)"), True),
    "metamath": Reader("query", "response", _last(r"The answer is:?\s*(\S.*)"), False),
    "math": Reader("problem", "solution", last_boxed, True),
}


@task_config
class WorkedAnswers(LanguageTask):
    """Problems with worked answers, answered by greedy generation."""

    like: ClassVar[str]  # how MetaMathQA's `type` begins for rows of this task's kind

    def texts(self, rows: Sequence[dict], dataset: str) -> list[dict[str, Any]]:
        """Rows as {question, answer, final, subject, level}; the last two are empty where a set has none."""
        reader = READERS[catalogue.entry(dataset).get("reader", "gsm8k")]
        refuse_missing(rows, (reader.question, reader.answer), dataset)
        refuse_other_than_text(rows, (reader.question, reader.answer), dataset)
        texts = [_text(row, reader) for row in rows]
        if without := [i for i, text in enumerate(texts) if text is None]:
            named = ", ".join(map(str, without[:5])) + (", ..." if len(without) > 5 else "")
            raise UserError(f"{len(without)} of {len(rows)} rows of '{dataset}' have no answer: rows {named}.")
        return texts

    def evaluate(self, bundle: ModelBundle, evaluation: Evaluation) -> list[dict]:
        """One generated answer a row; see `Task.evaluate`."""
        rows, dataset = evaluation.rows, evaluation.dataset
        if _joint(dataset):
            rows = [row for row in rows if row.get("type", self.like).startswith(self.like)]
        docs = [self.doc(text) for text in self.texts(rows, dataset)]
        return generate(self.harness, bundle, docs, evaluation)

    def doc(self, text: dict[str, str]) -> dict[str, str]:
        """What the harness gets of a row, and what a sample keeps of it."""
        return {"prompt": self.eval_prompt.format(**text), "target": text["final"]}


def _joint(dataset: str) -> bool:
    """Whether a data set holds rows of both kinds: rows kept aside from it are for the task that they are like."""
    return catalogue.entry(dataset).get("reader") == "metamath"


def _text(row: dict, reader: Reader) -> dict[str, str] | None:
    question, answer = row.get(reader.question), row.get(reader.answer)
    final = reader.final(answer) if question and answer else None
    if not question or not answer or (reader.needed and not final):
        return None
    level = str(row.get("level") or "")
    return {
        "question": question.strip(),
        "answer": answer.strip(),
        "final": (final or "").strip(),
        "subject": row.get("type") or row.get("subject") or "",
        "level": level.removeprefix("Level").strip(),
    }
