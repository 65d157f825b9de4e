"""GSM8K (Cobbe et al., arXiv:2110.14168): grade-school word problems, scored by the final number."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from eva_bench.task import task_config
from tasks.worked_answers import WorkedAnswers


@task_config
class GSM8K(WorkedAnswers):
    """Generated answers, read strictly (the format trained on) and flexibly (the last number of the text)."""

    like = "GSM"

    def score(self, samples: Sequence[dict]) -> dict[str, float]:
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
