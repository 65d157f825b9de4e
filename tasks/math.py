r"""MATH (Hendrycks et al., arXiv:2103.03874): competition problems with answers in `\boxed{}`."""

from __future__ import annotations

from collections.abc import Sequence

from eva_bench.task import task_config
from tasks.equivalence import equivalent
from tasks.math_answers import BOXES, last_boxed, same
from tasks.worked_answers import WorkedAnswers


@task_config
class MATH(WorkedAnswers):
    """Generated answers, compared as strings in a normal form and, beside it, by what they mean."""

    like = "MATH"

    def doc(self, text: dict[str, str]) -> dict[str, str]:
        """Prompt and target with subject and level."""
        return super().doc(text) | {"subject": text["subject"], "level": text["level"]}

    def score(self, samples: Sequence[dict]) -> dict[str, float]:
        """`exact_match` (normal form of MATH's authors), also per subject and level; `math_verify`; `unanswered`."""
        answers = [final_answer(s["answer"]) for s in samples]
        exact = [answer is not None and same(answer, s["target"]) for answer, s in zip(answers, samples, strict=True)]
        meant = equivalent([(s["target"], answer or "") for answer, s in zip(answers, samples, strict=True)])
        metrics = {
            "exact_match": sum(exact) / len(samples),
            "math_verify": sum(meant) / len(samples),
            "unanswered": sum(answer is None for answer in answers) / len(samples),
        }
        for group in ("subject", "level"):
            for name in sorted({s[group] for s in samples} - {""}):
                found = [right for right, s in zip(exact, samples, strict=True) if s[group] == name]
                metrics[f"{group}/{name}"] = sum(found) / len(found)
        return metrics


def final_answer(text: str) -> str | None:
    """The answer in what the harness's filter cut out of a response, or None: the content of its box, if it has one."""
    if text == "[invalid]":  # lm-eval's word for a filter that found nothing
        return None
    return last_boxed(text) if any(box in text for box in BOXES) else text.strip() or None
