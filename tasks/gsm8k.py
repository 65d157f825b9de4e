"""GSM8K (Cobbe et al., arXiv:2110.14168): grade-school word problems, scored by the final number."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from eva_bench.errors import UserError
from eva_bench.method import settings
from tasks import sources
from tasks.harness import generate
from tasks.language import LanguageTask

# Columns of question and answer, where the final answer stands, and whether a row is useless without one, per
# reader named in tasks/manifest/. (MetaMathQA is only trained on: any response will do.)
READERS = {
    "gsm8k": ("question", "answer", re.compile(r"####\s*(\S.*)"), True),
    "metamath": ("query", "response", re.compile(r"The answer is:?\s*(\S.*)"), False),
}


@settings
class GSM8K(LanguageTask):
    """Generated answers, read strictly (the format trained on) and flexibly (the last number of the text)."""

    def texts(self, rows, dataset):
        question, answer, final, needed = READERS[sources.entry(dataset).get("reader", "gsm8k")]
        without = [
            i
            for i, row in enumerate(rows)
            if not row.get(question) or not row.get(answer) or (needed and not final.search(row[answer]))
        ]
        if without:
            named = ", ".join(map(str, without[:5])) + (", ..." if len(without) > 5 else "")
            raise UserError(f"{len(without)} of {len(rows)} rows of '{dataset}' have no answer: rows {named}.")
        return [
            {
                "question": row[question].strip(),
                "answer": row[answer].strip(),
                "final": (final.findall(row[answer]) or [""])[-1].strip(),
            }
            for row in rows
        ]

    def evaluate(self, bundle, rows, dataset, evaluation, samples_file, progress):
        docs = [
            {"prompt": self.eval_prompt.format(**text), "target": text["final"]} for text in self.texts(rows, dataset)
        ]
        return generate(self.harness, bundle, docs, evaluation, samples_file, progress)

    def score(self, samples):
        """Exact match of numbers: `18`, `18.00`, `$18` and `1,018` read as a person would."""
        strict = [number(s["strict"]) is not None and number(s["strict"]) == number(s["target"]) for s in samples]
        flexible = [number(s["flexible"]) is not None and number(s["flexible"]) == number(s["target"]) for s in samples]
        unanswered = [number(s["strict"]) is None for s in samples]
        n = len(samples)
        return {
            "exact_match_strict": sum(strict) / n,
            "exact_match_flexible": sum(flexible) / n,
            "unanswered": sum(unanswered) / n,
        }


def number(text: str) -> Decimal | None:
    """The number that a string stands for, or None: `$1,018.00` is 1018."""
    cleaned = text.strip().replace(",", "").replace("$", "").rstrip(".")
    try:
        value = Decimal(cleaned)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
