"""Answers of MATH: found in a text, brought into a normal form, compared as strings. No torch here.

The rules are those that the authors of MATH published with it (Hendrycks et al., arXiv:2103.03874, file
math_equivalence.py of their repository), quirks included: scores are comparable only if everybody forgives the same.
"""

from __future__ import annotations

import re

BOXES = (r"\boxed", r"\fbox")


def last_boxed(text: str) -> str | None:
    """Content of the last `\\boxed{}`, or of `\\boxed 5`, or, without any, of the last `\\fbox{}`.

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
    """Whether two answers have the same normal form (`exact_match`)."""
    return normal_form(answer) == normal_form(target)


def normal_form(answer: str) -> str:
    """The string that stands for an answer and its usual variants of spelling.

    Forgiven are spaces, sizes of fractions and brackets, degrees, dollar and percent signs, a unit in `\\text{ }`, a
    leading `x=`, missing braces of fractions and roots, a missing zero before the point, and 0.5 and a/b for fractions.
    An answer that the published code stumbles over (x/2, two units) is compared as it is written.
    """
    try:
        return _normalised(answer)
    except ValueError:
        return answer


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


def _normalised(text: str) -> str:
    for old, new in _REPLACED:
        text = text.replace(old, new)
    if r"\text{ " in text:
        text, _unit = text.split(r"\text{ ")
    text = re.sub(r"(^|[ {])\.", r"\g<1>0.", text.replace(r"\%", ""))
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name) <= 2:
        text = value
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text)
    text = _fractions_with_braces(text.replace(" ", ""))
    return r"\frac{1}{2}" if text == "0.5" else _ratio_as_fraction(text)


def _fractions_with_braces(text: str) -> str:
    r"""`\frac12` and `\frac1{72}` with both pairs of braces; unchanged if one of the fractions is cut off."""
    head, *rest = text.split(r"\frac")
    if any(len(part) < 2 and part != "{" for part in rest):
        return text
    for part in rest:
        if part[0] != "{":
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
