"""Answers of MATH: found in a text, brought into a normal form, compared as strings. No torch here.

The rules are those that the authors of MATH published with it (Hendrycks et al., arXiv:2103.03874, file
math_equivalence.py of their repository), quirks included: scores are comparable only if everybody forgives the same.
"""

from __future__ import annotations

import re

BOXES = (r"\boxed", r"\fbox")


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{}`, or of `\boxed 5`, or, without any, of the last `\fbox{}`.

    None where there is no box, or where the last one is never closed.
    """
    for command in BOXES:
        _, found, inside = text.rpartition(command)
        if found:
            return _content(inside)
    return None


def _content(inside: str) -> str | None:
    """What stands between a brace and the one that closes it, or between a space and the end of the formula."""
    if inside.startswith(" "):
        return inside.split("$")[0].strip()
    depth = 0
    for i, sign in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth <= 0:
            return inside[1:i] if i else None
    return None


def same(answer: str, target: str) -> bool:
    """Whether two answers have the same normal form (`exact_match`).

    Two answers of which one has no normal form are compared as they are written.
    """
    try:
        return normal_form(answer) == normal_form(target)
    except ValueError:
        return answer == target


def normal_form(answer: str) -> str:
    r"""Replace the usual variants of spelling of an answer by one of them.

    Forgiven are spaces, sizes of fractions and brackets, degrees, dollar and percent signs, a unit in `\text{ }`, a
    leading `x=`, missing braces of fractions and roots, a missing zero before the point, and 0.5 and a/b for fractions.

    Raises:
        ValueError: the published code fails on this answer (x/2, two units, a fraction or root of nothing).
    """
    for old, new in _REPLACED:
        answer = answer.replace(old, new)
    if r"\text{ " in answer:
        answer, _unit = answer.split(r"\text{ ")
    answer = re.sub(r"(^|[ {])\.", r"\g<1>0.", answer.replace(r"\%", ""))
    name, equals, value = answer.partition("=")
    if equals and "=" not in value and len(name) <= 2:
        answer = value
    answer = _fractions_with_braces(_roots_with_braces(answer).replace(" ", ""))
    return r"\frac{1}{2}" if answer == "0.5" else _ratio_as_fraction(answer)


_REPLACED = (  # in this order
    ("\n", ""),
    (r"\!", ""),  # negative space, as in 10\!000
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    (r"\left", ""),
    (r"\right", ""),
    (r"^{\circ}", ""),
    (r"^\circ", ""),
    (r"\$", ""),
)


def _roots_with_braces(text: str) -> str:
    r"""`\sqrt3` as `\sqrt{3}`. Raises ValueError for a root of nothing."""
    head, *rest = text.split(r"\sqrt")
    if not all(rest):
        raise ValueError(f"a root of nothing in {text}")
    return head + "".join(rf"\sqrt{part}" if part[0] == "{" else rf"\sqrt{{{part[0]}}}{part[1:]}" for part in rest)


def _fractions_with_braces(text: str) -> str:
    r"""`\frac12` and `\frac1{72}` with both pairs of braces; unchanged if one of the fractions has one sign only.

    Raises ValueError for a fraction of nothing, unless one of a single sign comes before it.
    """
    head, *rest = text.split(r"\frac")
    for part in rest:
        if not part:
            raise ValueError(f"a fraction of nothing in {text}")
        if part[0] != "{":
            if len(part) == 1:
                return text
            denominator = part[1] if part[1] == "{" else f"{{{part[1]}}}"
            part = f"{{{part[0]}}}{denominator}{part[2:]}"
        head += rf"\frac{part}"
    return head


def _ratio_as_fraction(text: str) -> str:
    """`3/4` as a fraction. Raises ValueError for a ratio of anything but whole numbers."""
    parts = text.split("/")
    if len(parts) != 2:
        return text
    numerator, denominator = map(int, parts)
    return rf"\frac{{{numerator}}}{{{denominator}}}" if text == f"{numerator}/{denominator}" else text
