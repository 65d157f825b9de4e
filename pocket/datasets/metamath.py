"""Word problems and MATH-type problems in MetaMathQA's columns: the pocket stand-in for MetaMathQA."""

from pocket.datasets import gsm8k, math
from pocket.datasets.splits import checksum

SIZES = {split: 2 * min(gsm8k.SIZES[split], math.SIZES[split]) for split in gsm8k.SIZES}


def generate(split: str) -> list[dict[str, str]]:
    """Rows of both generators in turn, as {"query", "response", "type", "original_question"}.

    `type` begins with the set that a row is like, as in MetaMathQA. Raises ValueError for an unknown split.
    """
    rows = []
    for word_problem, problem in zip(gsm8k.generate(split), math.generate(split), strict=False):
        rows.append(_row("GSM", word_problem["question"], word_problem["answer"]))
        rows.append(_row("MATH", problem["problem"], problem["solution"]))
    return rows


def _row(kind: str, question: str, answer: str) -> dict[str, str]:
    return {"query": question, "response": answer, "type": kind, "original_question": question}


def fingerprint() -> str:
    """The sha256 of all rows of all splits."""
    return checksum(generate(split) for split in SIZES)
