"""Pretraining documents about numbers: calculations, lists to look up, algebra, and stories worked out.

Their wording, length and layout differ from those of the pocket tasks on purpose: the difference is what an adapter
has to learn.
"""

import random

from pocket.world.worlds import (
    COMMON,
    GAINS,
    GROUPS,
    HOLDERS,
    LOSSES,
    NAMES,
    SENTENCE_STARTS,
    THINGS,
    TIMES,
)

LARGEST = 120  # no number of a calculation is larger


def _apply(x: int, operator: str, y: int) -> int:
    return {"+": x + y, "-": x - y, "*": x * y, "/": x // max(y, 1)}[operator]


def _operand(rng: random.Random, operator: str, x: int) -> int:
    """Draw a y for which `x operator y` is a whole number from 0 to LARGEST, or 0 where there is none."""
    if operator == "+":
        return rng.randint(0, min(LARGEST - x, 60)) if x < LARGEST else 0
    if operator == "-":
        return rng.randint(0, x)
    if operator == "*":
        return rng.randint(2, max(2, min(15, LARGEST // max(x, 1)))) if 0 < x <= LARGEST // 2 else 0
    return rng.choice([y for y in range(2, 13) if x % y == 0] or [0]) if x else 0


def _equation(rng: random.Random) -> tuple[int, str, int, int]:
    operator = rng.choice("++--***/")
    if operator == "*":
        x = rng.randint(2, 15)
        y = rng.randint(1, LARGEST // x)
    else:
        x = rng.randint(1, LARGEST)
        y = _operand(rng, operator, x)
    if operator in "+*" and rng.random() < 0.5:
        x, y = y, x
    return (x, operator, y, _apply(x, operator, y)) if operator != "/" or y else (x, "/", 1, x)


def _written(rng: random.Random) -> str:
    """Choose how equations are written in one document."""
    return rng.choice(("{} {} {} = {}", "{} {} {} = {}", "{}{}{}={}"))


def calculations(rng: random.Random) -> str:
    """Unconnected equations, one after the other."""
    form, sign = _written(rng), rng.choice(("; ", "\n", ", "))
    return sign.join(form.format(*_equation(rng)) for _ in range(rng.randint(3, 8)))


def chain(rng: random.Random) -> str:
    """A running total: every equation starts with the result of the one before."""
    form, sign = _written(rng), rng.choice(("; ", "\n", ", then "))
    x, parts = rng.randint(1, 60), []
    for _ in range(rng.randint(2, 5)):
        operator = rng.choice("++--*/")
        y = _operand(rng, operator, x)
        if y == 0:
            operator, y = "+", rng.randint(0, LARGEST - x)
        parts.append(form.format(x, operator, y, _apply(x, operator, y)))
        x = _apply(x, operator, y)
    return sign.join(parts)


def lookup(rng: random.Random) -> str:
    """A list of named numbers, some of which are asked for again."""
    words = rng.choice((NAMES, THINGS, HOLDERS, COMMON, COMMON, SENTENCE_STARTS, list("abcdefghkmnpqrstxyz")))
    names = rng.sample(sorted(set(words)), rng.randint(3, 6))
    values = {name: rng.randint(0, 200) for name in names}
    given, asked = rng.choice((("{}: {}", "{} is {}"), ("{} = {}", "{} -> {}"), ("{} {}", "{}: {}")))
    again = rng.sample(names, rng.randint(2, len(names)))
    lists = (given.format(k, values[k]) for k in names), (asked.format(k, values[k]) for k in again)
    return "\n".join(f"{', '.join(items)}." for items in lists)


def algebra(rng: random.Random) -> str:
    """Short lines of symbolic algebra and number facts."""
    a, b, x = rng.randint(2, 9), rng.randint(1, 30), rng.randint(1, 12)
    v, n = rng.choice("xyzn"), rng.randint(1, LARGEST)
    lines = (
        f"{a}{v} + {b} = {a * x + b}, so {a}{v} = {a * x}, so {v} = {x}.",
        f"{v} - {b} = {x} gives {v} = {x} + {b} = {x + b}.",
        f"{a}({v} + {b}) = {a}{v} + {a * b}.",
        f"{a}{v} + {b}{v} = {a + b}{v}.",
        f"If {v} = {x} then {a}{v} = {a * x} and {v} + {b} = {x + b}.",
        f"{v}^2 = {x * x} gives {v} = {x}.",
        f"$\\frac{{{a * x}}}{{{a}}} = {x}$.",
        f"{x}^2 = {x * x}.",
        f"{n} mod {a} = {n % a}, because {n} = {n // a} * {a} + {n % a}.",
        f"{n} is {'odd' if n % 2 else 'even'}.",
        f"{n} {'<' if n < b else '>' if n > b else '='} {b}.",
        f"After {n} comes {n + 1}, before {n} comes {n - 1}.",
        f"Half of {2 * x} is {x}, twice {n} is {2 * n if n <= 100 else n + n}.",
        f"{', '.join(str(b + a * i) for i in range(5))}: always {a} more.",
        f"{a}, {b}, {x}: sorted {', '.join(map(str, sorted((a, b, x))))}.",
    )
    return "\n".join(rng.sample(lines, rng.randint(2, 4)))


def _event(rng: random.Random, name: str, thing: str, x: int) -> tuple[str, str, int]:
    """Return (sentence, operator, number) of something that changes how many `thing` there are."""
    operator = rng.choice("+++---*/")
    y = _operand(rng, operator, x)
    if y == 0:
        operator, y = "+", rng.randint(1, 20)
    other, verb = rng.choice(NAMES), rng.choice(GAINS if operator == "+" else LOSSES).replace("_", " ")
    sentences = {
        "+": (
            f"{name} {verb} {y} more {thing}",
            f"{y} {thing} come in",
            f"{other} brings {y} {thing}",
            f"{y} are added",
        ),
        "-": (f"{name} {verb} {y} {thing}", f"{y} {thing} go out", f"{other} takes {y} {thing}", f"{y} are taken off"),
        "*": (f"it is made {y} times as much", f"the {thing} grow {y} times", f"everyone of {y} has as many {thing}"),
        "/": (f"it is split into {y} equal parts", f"{y} {rng.choice(GROUPS)} share the {thing}", f"it is cut by {y}"),
    }
    return rng.choice(sentences[operator]), operator, y


def _opening(rng: random.Random, name: str, thing: str) -> tuple[str, list[tuple[int, str, int]], int]:
    """Return the first sentence of a story, the equations it needs, and how many `thing` there are after it."""
    holder = rng.choice(HOLDERS)
    a = rng.randint(2, 12)
    b = rng.randint(2, min(15, LARGEST // a))
    kind = rng.random()
    if kind < 0.35:
        start = rng.randint(2, 60)
        texts = (
            f"{name} owns {start} {thing}",
            f"here lie {start} {thing}",
            f"{start} {thing} belong to {name}",
            f"we count {start} {thing}",
        )
        return rng.choice(texts), [], start
    if kind < 0.7:
        texts = (
            f"{name} keeps {a} {holder} of {b} {thing}",
            f"each of {a} {holder} holds {b} {thing}",
            f"{name} makes {a} {thing} per {rng.choice(TIMES)} for {b} in a row",
            f"{a} {rng.choice(GROUPS)} bring {b} {thing} each",
        )
        return rng.choice(texts), [(a, "*", b)], a * b
    return _two_parts(rng, name, thing, a, b)


def _two_parts(
    rng: random.Random, name: str, thing: str, a: int, b: int
) -> tuple[str, list[tuple[int, str, int]], int]:
    """Return an opening as `_opening` does, whose equations do not all continue the one before."""
    holder, other, second, third = rng.choice(HOLDERS), rng.choice(NAMES), rng.choice(THINGS), rng.choice(HOLDERS)
    c, d, e = rng.randint(2, 60), rng.randint(2, 9), rng.randint(2, 9)
    groups, product = f"{a} {holder} of {b} {thing}", (a, "*", b)
    choices = [
        (f"{name} owns {b} {thing}, {other} owns {c} more than {name}", [(b, "+", c)]),
        (f"{name} has {b} {thing} here and {c} there", [(b, "+", c)]),
    ]
    if a * b + d * e <= LARGEST:
        text = f"{groups} and {d} {third} of {e} {second} stand here"
        choices += [(text, [product, (d, "*", e), (a * b, "+", d * e)])] * 2
    if a * b > d * e:
        text = f"{groups} stand here, but {d} {third} of {e} are missing"
        choices += [(text, [product, (d, "*", e), (a * b, "-", d * e)])] * 2
    if a * b > c + d:
        text = f"{groups} stand here, but {c} and {d} {thing} are missing"
        choices += [(text, [product, (c, "+", d), (a * b, "-", c + d)])] * 2
    if a * b + c <= LARGEST:
        text = f"{groups} stand here and {a * b + c} {thing} are wanted"
        choices += [(text, [product, (a * b + c, "-", a * b)])] * 2
    text, equations = rng.choice(choices)
    return text, equations, _apply(*equations[-1])


def story(rng: random.Random) -> str:
    """A story of changing numbers with its running total, worked inside the story or after it."""
    name, thing, form = rng.choice(NAMES), rng.choice(THINGS), _written(rng)
    text, equations, x = _opening(rng, name, thing)
    told, worked = [text], [[form.format(*e, _apply(*e)) for e in equations]]
    for _ in range(rng.randint(1 if equations else 2, 4)):
        sentence, operator, y = _event(rng, name, thing, x)
        if not 0 <= _apply(x, operator, y) <= LARGEST:
            break
        told.append(sentence)
        worked.append([form.format(x, operator, y, _apply(x, operator, y))])
        x = _apply(x, operator, y)
    layout = rng.random()
    if layout < 0.3:
        return (
            ". ".join(f"{t} ({', '.join(w)})" if w else t for t, w in zip(told, worked, strict=True))
            + f". In the end {x} {thing}, said {name}."
        )
    lines = [equation for step in worked for equation in step]
    head, sign = rng.choice((("Working:", "; "), ("Sum:", ", "), ("Notes:", "\n"), ("We write", " and ")))
    if layout < 0.5:
        lines = [f"{i}) {line}" for i, line in enumerate(lines, 1)]
    elif layout < 0.6:
        lines = [f"{line} {thing}" for line in lines]
    return f"Story: {'. '.join(told)}.\n{head} {sign.join(lines)}."


def table(rng: random.Random) -> str:
    """A list of named numbers and equations that use them by name."""
    names = rng.sample(THINGS + HOLDERS, rng.randint(3, 5))
    values = {name: rng.randint(2, 40) for name in names}
    form, lines = _written(rng), []
    for _ in range(rng.randint(2, 4)):
        p, q = rng.sample(names, 2)
        operator = rng.choice("+-*" if values[p] * values[q] <= LARGEST else "+-")
        if operator == "-" and values[p] < values[q]:
            p, q = q, p
        word = {"+": "and", "-": "less", "*": "times"}[operator]
        x, y = values[p], values[q]
        lines.append(f"{p} {word} {q}: {form.format(x, operator, y, _apply(x, operator, y))}")
    return f"{', '.join(f'{n} {values[n]}' for n in names)}.\n" + "\n".join(lines)
