"""The text that the pocket language model is pretrained on, generated document by document.

Two thirds are about numbers: calculations, lists to look up, and stories whose numbers are carried into equations and running
totals. The rest is plain knowledge of small worlds, as statements, questions and choices. The pocket tasks use other
wordings, lengths and answer formats: that difference is what an adapter has to learn.
"""

import hashlib
import random
from collections.abc import Callable, Iterator

from eva_bench.models.pocket.worlds import (
    CAUSES, COMMON, FACTS, GAINS, GROUPS, HOLDERS, LOSSES, MATERIALS, NAMES, OPPOSITES, SENTENCE_STARTS, THINGS, TIMES,
)  # fmt: skip

VERSION = 1
LARGEST = 120  # no number of a calculation is larger

Document = Callable[[random.Random], str]


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
    return f"{', '.join(given.format(k, values[k]) for k in names)}.\n{', '.join(asked.format(k, values[k]) for k in again)}."


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
        "+": (f"{name} {verb} {y} more {thing}", f"{y} {thing} come in", f"{other} brings {y} {thing}", f"{y} are added"),
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
    if kind < 0.4:
        start = rng.randint(2, 60)
        texts = (f"{name} owns {start} {thing}", f"here lie {start} {thing}", f"{start} {thing} belong to {name}", f"we count {start} {thing}")
        return rng.choice(texts), [], start
    if kind < 0.75:
        texts = (
            f"{name} keeps {a} {holder} of {b} {thing}",
            f"each of {a} {holder} holds {b} {thing}",
            f"{name} makes {a} {thing} per {rng.choice(TIMES)} for {b} in a row",
            f"{a} {rng.choice(GROUPS)} bring {b} {thing} each",
        )
        return rng.choice(texts), [(a, "*", b)], a * b
    c = rng.randint(2, 60)
    other, second, third = rng.choice(NAMES), rng.choice(THINGS), rng.choice(HOLDERS)
    d, e = rng.randint(2, 9), rng.randint(2, 9)
    if kind < 0.85 or a * b + d * e > LARGEST:
        texts = (f"{name} owns {b} {thing}, {other} owns {c} more than {name}", f"{name} has {b} {thing} here and {c} there")
        return rng.choice(texts), [(b, "+", c)], b + c
    text = f"{a} {holder} of {b} {thing} and {d} {third} of {e} {second} stand here"
    return text, [(a, "*", b), (d, "*", e), (a * b, "+", d * e)], a * b + d * e


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
        return ". ".join(f"{t} ({', '.join(w)})" if w else t for t, w in zip(told, worked)) + f". In the end {x} {thing}, said {name}."
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


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def knowledge(rng: random.Random) -> str:
    """Statements about a thing, its material, its place and its use."""
    thing = rng.choice(list(FACTS))
    kind, material, place, use, _ = FACTS[thing]
    lines = [f"{_article(thing).capitalize()} is {kind}.", f"You find {_article(thing)} {place}.", f"The {thing} can {use}."]
    if kind != "an animal":
        lines = lines[:2] + [f"{_article(thing).capitalize()} is made of {material}.", f"You need {_article(thing)} to {use}."]
    if material in MATERIALS:
        like, happens = MATERIALS[material]
        lines += [f"{material.capitalize()} is {like}.", f"{material.capitalize()} {happens}, so the {thing} {happens}."]
    if rng.random() < 0.15:
        return f"#### {thing}\n" + "\n".join(f"<<{line}>>" for line in lines[:3])
    return " ".join(rng.sample(lines, rng.randint(2, len(lines))))


def comparison(rng: random.Random) -> str:
    """Two things or people compared, then a question whose answer is one of them."""
    if rng.random() < 0.5:
        p, q = rng.sample(list(FACTS), 2)
        if FACTS[p][4] < FACTS[q][4]:
            p, q = q, p
        if FACTS[p][4] == FACTS[q][4]:
            return f"The {p} and the {q} are about as big."
        p, q, more, less = f"the {p}", f"the {q}", "big", "small"
    else:
        (p, q), (more, less) = rng.sample(NAMES, 2), rng.choice(OPPOSITES)
    holder = rng.choice(("box", "bag", "car", "room"))
    text = rng.choice(
        (
            f"{p} is more {more} than {q}. So {q} is more {less} than {p}. Which is {more}? {p}.",
            f"{p} does not fit into the {holder}, but {q} does, because {p} is too {more}. What is too {more}? {p}.",
            f"{p} won against {q} because {p} was {more}. Who was {less}? {q}.",
            f"{q} asked {p} for help, as {q} is {less}. Who helps? {p}. Who asks? {q}.",
        )
    )
    return text[0].upper() + text[1:]


def consequence(rng: random.Random) -> str:
    """A cause, its effect, and what a person does and feels."""
    cause, effect, does, feels = rng.choice(CAUSES)
    name = rng.choice(NAMES)
    return rng.choice(
        (
            f"When {cause}, {effect}. So {name} {does}.",
            f"{effect.capitalize()} because {cause}. {name} {does} and is {feels}.",
            f"Why does it happen that {effect}? Because {cause}.",
            f"First {cause}. Then {effect}. After that {name} {does}. How does {name} feel? {feels}.",
            f"{name} {does}. Why? Because {cause}.",
        )
    )


def _asked(rng: random.Random) -> tuple[str, str, list[str]]:
    """Return a question, its right answer and wrong answers."""
    thing = rng.choice(list(FACTS))
    column, text = rng.choice(
        (
            (0, f"what is {_article(thing)}?"),
            (1, f"what is {_article(thing)} made of?"),
            (2, f"where is {_article(thing)}?"),
            (3, f"what can {_article(thing)} do for you?"),
        )
    )
    if rng.random() < 0.3:
        cause, effect, _, _ = rng.choice(CAUSES)
        return f"what happens when {cause}?", effect, sorted({c[1] for c in CAUSES} - {effect})
    right = FACTS[thing][column]
    return text, right, sorted({str(fact[column]) for fact in FACTS.values()} - {right})


def quiz(rng: random.Random) -> str:
    """A question with its answer: open, yes or no, or a choice among marked answers."""
    text, right, wrong = _asked(rng)
    layout = rng.random()
    if layout < 0.35:
        return f"Q: {text}\nA: {right}"
    if layout < 0.55:
        true = rng.random() < 0.5
        return f"{text.capitalize()} Is it: {right if true else rng.choice(wrong)}? {'yes' if true else 'no'}"
    options = rng.sample(wrong, rng.randint(1, 3)) + [right]
    rng.shuffle(options)
    marks = rng.choice(("ABCDE", "12345", "abcde"))
    listed = rng.choice(("\n", " ")).join(f"{mark}) {option}" for mark, option in zip(marks, options))
    return f"{text.capitalize()}\n{listed}\nChoose: {marks[options.index(right)]}"


# How often each kind of document is written, in percent.
MIX: dict[Document, int] = {
    story: 34, calculations: 12, chain: 8, lookup: 8, table: 8, algebra: 8,
    knowledge: 6, comparison: 5, consequence: 4, quiz: 7,
}  # fmt: skip


def documents(stream: str) -> Iterator[str]:
    """Yield documents without end from the named random stream ("train", "held-out", ...)."""
    rng = random.Random(f"pocket language corpus {VERSION} {stream}")
    kinds, weights = list(MIX), list(MIX.values())
    while True:
        yield rng.choices(kinds, weights)[0](rng)


def first_documents(stream: str, n: int) -> list[str]:
    """Return the first n documents of a stream."""
    source = documents(stream)
    return [next(source) for _ in range(n)]


def checksum(texts: list[str]) -> str:
    """Return the sha256 of documents joined by zero bytes."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
