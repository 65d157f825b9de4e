"""Scores of GSM8K from samples alone: what a person would call right is right, all else is wrong."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
import yaml

from tasks.gsm8k import number
from tasks.harness import FOLDER
from tests.unit.test_train import task  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("18.00", 18),
        ("$18", 18),
        ("$1,018", 1018),
        ("1,018.50", "1018.5"),
        ("-3", -3),
        ("$-3", -3),
        ("18.", 18),
        (" 18 ", 18),
        ("0", 0),
        ("-0", 0),
        ("", None),
        ("[invalid]", None),
        ("eighteen", None),
        ("3/4", None),
        ("1.2.3", None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        (".", None),
        (",", None),
        ("--3", None),
    ],
)
def test_numbers_are_read_as_a_person_would(text, value):
    assert number(text) == (None if value is None else Decimal(value))


def sample(strict, flexible, target="18"):
    return {"strict": strict, "flexible": flexible, "target": target}


def test_perfect_wrong_and_unanswered_samples(task):  # noqa: F811
    samples = [sample("18", "18"), sample("18.00", "$18"), sample("[invalid]", "18"), sample("19", "19")]
    assert task.score(samples) == {"exact_match_strict": 0.5, "exact_match_flexible": 0.75, "unanswered": 0.25}
    assert task.score([sample("1018", "1018", "1,018")] * 3)["exact_match_strict"] == 1.0
    assert task.score([sample("[invalid]", "[invalid]", "[invalid]")])["exact_match_flexible"] == 0.0
    assert task.score([sample("180", "1"), sample("8", "-18")])["exact_match_flexible"] == 0.0


def test_order_of_samples_does_not_matter(task):  # noqa: F811
    samples = [sample(str(value), str(value)) for value in range(16, 20)]
    assert task.score(samples) == task.score(samples[::-1])


def filters(name: str) -> dict[str, tuple[str, int]]:
    config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    found = {}
    for item in config["filter_list"]:
        regex = item["filter"][0]
        found[item["name"]] = (regex["regex_pattern"], regex.get("group_select", 0))
    return found


def extract(task_name: str, filter_name: str, text: str) -> str:
    """As lm-eval's regex filter: the chosen match, its first group that is not empty."""
    pattern, select = filters(task_name)[filter_name]
    matches = re.findall(pattern, text)
    if not matches:
        return "[invalid]"
    match = matches[select]
    return match.strip() if isinstance(match, str) else next(part for part in match if part).strip()


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("3*6=<<3*6=18>>18 eggs.\n#### 18", 18, 18),
        ("#### -3", -3, -3),
        ("#### 1,018", 1018, 1018),
        ("#### 18.00", 18, 18),
        ("####18", None, 18),  # strict is the trained format, with its space
        ("The answer is 18.", None, 18),
        ("It costs $1,018.", None, 1018),
        ("No idea", None, None),
        ("#### 5\n\nQ: how many now?\n#### 7", 5, 7),
    ],
)
def test_the_filters_of_the_harness_and_the_score_together(text, strict, flexible):
    assert number(extract("gsm8k", "strict", text)) == strict
    assert number(extract("gsm8k", "flexible", text)) == flexible


@pytest.mark.parametrize(
    ("text", "strict"),
    [
        ("#### 18\nThe answer is: 18", 18),
        ("The answer is 18.", 18),
        ("The answer is: $1,018", 1018),
        ("The answer is: 3. The answer is: 4", 4),
        ("#### 18", None),
    ],
)
def test_the_filters_after_metamath(text, strict):
    assert number(extract("gsm8k_metamath", "strict", text)) == strict
