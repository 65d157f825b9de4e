"""Generated problems of MATH's kind and the joint training set: right answers, disjoint and fixed splits."""

import re
from fractions import Fraction

import pytest
from sympy import Rational, expand, simplify, solve, symbols
from sympy.parsing.sympy_parser import implicit_multiplication_application, parse_expr, standard_transformations

from pocket.datasets import gsm8k, math, metamath
from tasks.math_answers import last_boxed

SPLITS = tuple(math.SIZES)

# The committed rows: a change of a generator must be a new VERSION and new records.
FINGERPRINTS = {
    math: "f271fbdbaa7e6192ce3ecc80f6c38f2e9738000dcf517ee05981482341ce342f",
    metamath: "e7123e6b61dcf7d64ef55c576d85b342fa1620e67fb4e0bb70166e3bf4d8a522",
}
x, y = symbols("x y")


def read(latex: str):
    """An expression of sympy; fractions as \\frac{a}{b}."""
    text = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"(\1/\2)", latex).replace(r"\cdot", "*").replace("^", "**")
    return parse_expr(
        text,
        transformations=(*standard_transformations, implicit_multiplication_application),
        local_dict={"x": x, "y": y},
    )


def solved(name: str, problem: str):
    """The answer to a problem from its text alone."""
    formulas = re.findall(r"\$(.+?)\$", problem)
    if name == "value":
        return read(formulas[1]).subs(x, read(formulas[0].split("=")[1]))
    if name in ("like_terms", "fraction_sum", "fraction_product", "expand"):
        return expand(read(formulas[0]))
    if name == "linear":
        left, right = formulas[0].split("=")
        return solve(read(left) - read(right), x)[0]
    numbers = [int(formula) for formula in formulas]
    return {
        "sequence": lambda a, b, c: a + (c - 1) * b,
        "dividend": lambda a, b, c: a * b + c,
        "middle": lambda a, b: Rational(a + b, 2),
        "probability": lambda n, a: 1 - Rational(a, n),
        "codes": lambda a, b, c: a * (b + c),
    }[name](*numbers)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right_and_calculations_too(split):
    for key, row in list(zip(math.keys(split), math.generate(split), strict=True))[:150]:
        answer = last_boxed(row["solution"])
        assert simplify(read(answer) - solved(key.split()[0], row["problem"])) == 0, row
        for left, right in re.findall(r"(-?\d+[-+*/]-?\d+)=(-?\d+)", row["solution"]):
            assert eval(left) == int(right), row


@pytest.mark.parametrize("split", SPLITS)
def test_columns_levels_and_lowest_terms(split):
    for row in math.generate(split):
        assert set(row) == {"problem", "level", "type", "solution"}
        assert re.fullmatch("Level [1-5]", row["level"])
        for numerator, denominator in re.findall(r"\\frac\{(\d+)\}\{(\d+)\}", last_boxed(row["solution"])):
            assert Fraction(int(numerator), int(denominator)).denominator == int(denominator) > 1


def test_answers_are_of_many_kinds():
    answers = [last_boxed(row["solution"]) for row in math.generate("test")]
    for kind in (r"-\d+", r"\d+", r"\\frac\{\d+\}\{\d+\}", r"\d+x \+ \d+", r"\d+x \+ \d+y"):
        assert sum(re.fullmatch(kind, answer) is not None for answer in answers) >= 10, kind


def test_sizes_and_disjoint_splits():
    problems = {split: {row["problem"] for row in math.generate(split)} for split in SPLITS}
    for split in SPLITS:
        assert len(math.generate(split)) == math.SIZES[split] == len(set(math.keys(split)))
        for other in set(SPLITS) - {split}:
            assert not set(math.keys(split)) & set(math.keys(other))
            assert not problems[split] & problems[other]


@pytest.mark.parametrize("split", SPLITS)
def test_the_joint_set_holds_both_kinds_and_nothing_of_other_splits(split):
    rows = metamath.generate(split)
    assert len(rows) == metamath.SIZES[split]
    assert [row["type"] for row in rows[:4]] == ["GSM", "MATH", "GSM", "MATH"]
    word_problems, problems = gsm8k.generate(split), math.generate(split)
    assert {row["query"]: row["response"] for row in rows}.items() <= (
        {row["question"]: row["answer"] for row in word_problems}
        | {row["problem"]: row["solution"] for row in problems}
    ).items()


def test_no_box_in_the_pretraining_text():
    corpus = pytest.importorskip("pocket.world.corpus")
    assert "boxed" not in "\n".join(corpus.first_documents("train", 5000))


@pytest.mark.parametrize("generator", list(FINGERPRINTS), ids=lambda generator: generator.__name__)
def test_the_rows_are_the_committed_ones(generator):
    generator.generate("test")[0].clear()  # what a caller does to its rows changes nothing
    assert generator.fingerprint() == FINGERPRINTS[generator]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        math.generate("dev")
