"""Pretraining documents about small worlds: plain facts, comparisons, causes, and questions about them."""

import random

from pocket.world.words import capitalised, with_article
from pocket.world.worlds import (
    CAUSES,
    FACTS,
    MATERIALS,
    NAMES,
    OPPOSITES,
)


def knowledge(rng: random.Random) -> str:
    """Statements about a thing, its material, its place and its use."""
    thing = rng.choice(list(FACTS))
    kind, material, place, use, _ = FACTS[thing]
    lines = [
        f"{with_article(thing).capitalize()} is {kind}.",
        f"You find {with_article(thing)} {place}.",
        f"The {thing} can {use}.",
    ]
    if kind != "an animal":
        lines[2:] = [
            f"{with_article(thing).capitalize()} is made of {material}.",
            f"You need {with_article(thing)} to {use}.",
        ]
    if material in MATERIALS:
        like, happens = MATERIALS[material]
        lines += [
            f"{material.capitalize()} is {like}.",
            f"{material.capitalize()} {happens}, so the {thing} {happens}.",
        ]
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
    return capitalised(text)


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
            (0, f"what is {with_article(thing)}?"),
            (1, f"what is {with_article(thing)} made of?"),
            (2, f"where is {with_article(thing)}?"),
            (3, f"what can {with_article(thing)} do for you?"),
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
    options = [*rng.sample(wrong, rng.randint(1, 3)), right]
    rng.shuffle(options)
    marks = rng.choice(("ABCDE", "12345", "abcde"))
    listed = rng.choice(("\n", " ")).join(f"{mark}) {option}" for mark, option in zip(marks, options, strict=False))
    return f"{text.capitalize()}\n{listed}\nChoose: {marks[options.index(right)]}"
