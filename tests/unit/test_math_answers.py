"""Answers of MATH: the box found, the normal form as MATH's authors have it, what math-verify says beside it."""

from __future__ import annotations

import re
import threading
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lm_eval.tasks.hendrycks_math import utils as published

from tasks import equivalence
from tasks.equivalence import equivalent
from tasks.harness import FOLDER
from tasks.math import MATH, final_answer
from tasks.math_answers import last_boxed, same

PIECES = [
    "\\frac",
    "\\dfrac",
    "\\tfrac",
    "{",
    "}",
    "1",
    "2",
    "72",
    "\\sqrt",
    "3",
    "x",
    "=",
    " ",
    "\\text{ cm}",
    ".5",
    "0.5",
    ".",
    "/",
    "-",
    "\\left(",
    "\\right)",
    "^\\circ",
    "^{\\circ}",
    "\\%",
    "\\!",
    "\n",
    "\\$",
    "+",
    "1/2",
    "\\frac12",
]
ANSWER = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{\frac{3}{7}}$.", r"\frac{3}{7}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{a_{b_{c}}}", "a_{b_{c}}"),
        (r"$\boxed 5$.", "5"),
        (r"\fbox{9}", "9"),
        (r"\boxed{}", ""),
        ("no box, 5", None),
        (r"\boxed{5", None),
        (r"\boxed{1} \boxed{2", None),
        ("", None),
        (r"\boxed", None),
        (r"\boxed}5{", None),
        (r"\boxed{\text{east}}", r"\text{east}"),
    ],
)
def test_the_last_box_with_its_nested_braces(text, answer):
    assert last_boxed(text) == answer


@settings(deadline=None)
@example("\\frac", "\\frac^\\circ")  # the published code fails on the first and then compares both as they are written
@example("\\sqrt", "\\sqrt^\\circ")
@example("\\frac1\\frac", "\\frac1\\frac^\\circ")  # here it does not come as far as the second fraction
@given(ANSWER, ANSWER)
def test_same_as_the_published_comparison(one, other):
    assert same(one, other) == published.is_equiv(one, other)
    assert same(one, one)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_compared_and_searched(text):
    assert same(text, text) and same(text, "5") == published.is_equiv(text, "5")
    assert last_boxed(text) is None or "box" in text


# target, answer, what each of the two scorers says
ANSWERS = [
    ("7", "7", True, True),
    ("7", "-7", False, False),
    (r"\frac{1}{2}", r"\dfrac{1}{2}", True, True),
    (r"\frac{1}{2}", r"\frac12", True, True),
    (r"\frac{1}{2}", "1/2", True, True),
    (r"\frac{1}{2}", "0.5", True, True),
    (r"\frac{1}{4}", "0.25", False, True),  # only 0.5 is forgiven by the published rules
    (r"\frac{1}{2}", r"\frac{2}{4}", False, True),
    (r"\frac{3}{7}", r"\frac{7}{3}", False, False),
    ("1018", "1,018", False, True),
    ("10000", r"10\!000", True, True),
    ("90", r"90^\circ", True, True),
    ("50", r"50\%", True, True),
    ("10", r"10\text{ cm}", True, True),
    ("5", r"\$5", True, True),
    ("5", "x=5", True, True),
    ("57x + 47y", "57x+47y", True, True),
    ("57x + 47y", "47y + 57x", False, True),
    ("3x + 21", "3(x+7)", False, True),
    ("3x + 21", "3x + 22", False, False),
    (r"\sqrt{3}", r"\sqrt3", True, True),
    (r"\left(1, 2\right)", "(1,2)", True, True),
    ("5", "", False, False),
    ("5", r"\frac{5", False, False),
]


@pytest.mark.parametrize(("target", "answer", "exact", "meant"), ANSWERS)
def test_what_both_scorers_say(target, answer, exact, meant):
    assert same(answer, target) is exact
    assert equivalent([(target, answer)]) == [meant]


def test_an_answer_that_costs_too_much_is_wrong_and_the_next_one_is_judged(monkeypatch):
    monkeypatch.setattr(equivalence, "_process", None)
    begin = time.monotonic()
    pairs = [("5", "5"), ("5", "9^{9^{9^{9}}}"), ("5", "5"), ("5", "5" * 301)]
    found = []
    thread = threading.Thread(target=lambda: found.extend(equivalent(pairs)))  # a signal would be refused here
    thread.start()
    thread.join(timeout=100)
    assert found == [True, False, True, False]
    assert time.monotonic() - begin < 100
    equivalence._stop()


def extract(name: str, text: str) -> str:
    """As lm-eval's regex filter with one group."""
    pattern = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["filter_list"][0]["filter"][0]["regex_pattern"]
    return next((match.strip() for match in re.findall(pattern, text)), "[invalid]")


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("math", r"We get $\boxed{1}$, no: $\boxed{\frac{3}{7}}$. Done." + "\nYes.", r"\frac{3}{7}"),
        ("math", "The answer is 5.", None),
        ("math", r"$\boxed{5", None),
        ("math", "", None),
        ("math_metamath", r"$\boxed{4}$.\nThe answer is: 4", "4"),
        ("math_metamath", "The answer is: \\frac{1}{2}.\nMore.", r"\frac{1}{2}"),
        ("math_metamath", "The answer is: 3\nThe answer is: 4", "4"),
        ("math_metamath", r"The answer is: $\boxed{4}$", "4"),
        ("math_metamath", "The answer is: 0.5.", "0.5"),
        ("math_metamath", r"\boxed{4}", None),
        ("math_metamath", "The answer is:", None),
    ],
)
def test_the_filters_of_the_harness_and_the_answer_in_what_they_leave(name, text, answer):
    assert final_answer(extract(name, text)) == answer


def sample(answer, target="7", subject="Algebra", level="1"):
    return {"answer": answer, "target": target, "subject": subject, "level": level}


def test_scores_per_subject_and_level():
    samples = [sample(r"\boxed{7}$."), sample(r"\boxed{8}"), sample("[invalid]", level="3"),
               sample(r"\boxed{\frac{2}{4}}", r"\frac{1}{2}", "Geometry", "")]  # fmt: skip
    assert MATH.score(None, samples) == {
        "exact_match": 0.25, "math_verify": 0.5, "unanswered": 0.25,
        "subject/Algebra": 1 / 3, "subject/Geometry": 0.0, "level/1": 0.5, "level/3": 0.0,
    }  # fmt: skip
    assert MATH.score(None, samples) == MATH.score(None, samples[::-1])
