"""Pocket MNLI, QNLI and RTE: what follows from a text, and which sentence answers a question."""

import random
from dataclasses import replace

from pocket.world.events import (
    OPPOSITES,
    TRAITS,
    VERBS,
    Event,
    Phrase,
    change,
    draw_event,
    generalise,
    person,
    question,
    reword,
    say,
    sentence,
    thing,
)

ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)
# Who and what the mismatched part of MNLI is about.
_OTHER_PEOPLE = ("player", "guest", "worker", "friend", "mouse", "cow", "elephant", "team")
OTHER_THINGS = ("ticket", "plate", "candle", "bottle", "ribbon", "bucket", "umbrella", "spoon", "drawer", "basket")
_TRAINED = {noun for noun in _OTHER_PEOPLE[:4]}


def mnli(rng: random.Random) -> dict:
    """A premise and a hypothesis; label 0: it follows, 1: nothing is said about it, 2: it cannot be."""
    first = draw_event(rng, place=0.6, time=0.5)
    while first.who.noun in _TRAINED:
        first = draw_event(rng, place=0.6, time=0.5)
    return _inference(first, rng)


def mismatched(rng: random.Random) -> dict:
    """The same about people and things that training rows do not name."""
    first = draw_event(rng, place=0.6, time=0.5)
    first = replace(
        first,
        who=Phrase(rng.choice(_OTHER_PEOPLE), first.who.trait),
        what=Phrase(rng.choice(OTHER_THINGS), first.what.trait),
    )
    return _inference(first, rng) | {"part": "mismatched"}


def _inference(first: Event, rng: random.Random) -> dict:
    label = rng.randrange(3)
    second = reword(generalise(first, rng), rng, 0.4)
    if label == ENTAILMENT:
        hypothesis = say(second, rng)
    elif label == NEUTRAL:
        hypothesis = say(_more(first, second, rng), rng)
    else:
        hypothesis = _against(first, second, rng)
    return {"premise": say(first, rng), "hypothesis": hypothesis, "label": label}


def _more(first: Event, second: Event, rng: random.Random) -> Event:
    """The hypothesis with something that the premise leaves open."""
    choices = [part for part in ("place", "time") if getattr(first, part) is None]
    choices += [
        part for part in ("who", "what") if getattr(first, part).trait is None and not getattr(first, part).is_name
    ]
    if not choices:
        return change(second, rng, ("what",))
    part = rng.choice(choices)
    if part in ("place", "time"):
        donor = draw_event(rng, place=1, time=1)
        return replace(second, **{part: getattr(donor, part)})
    old = getattr(second, part)
    return replace(second, **{part: Phrase(old.noun, rng.choice(TRAITS[part == "who"]))})


def _against(first: Event, second: Event, rng: random.Random) -> str:
    """The opposite: denied, with the opposite word, or somebody else, or elsewhere or at another time."""
    form = rng.random()
    if form < 0.25:
        base = next(base for base, (past, _) in VERBS.items() if past == first.past)
        end = f"{second.place or ''} {second.time or ''}"
        return sentence(f"{second.who.text()} did not {base} {second.what.text()} {end}")
    for part in ("what", "who"):
        trait = getattr(first, part).trait
        if trait in OPPOSITES and form < 0.6:
            return say(replace(second, **{part: replace(getattr(second, part), trait=OPPOSITES[trait])}), rng)
    if first.past in OPPOSITES and form < 0.8:
        return say(replace(second, past=OPPOSITES[first.past]), rng)
    part = rng.choice([part for part in ("place", "time") if getattr(first, part)] or ["who"])
    if part == "who":
        return f"Nobody {second.past} {second.what.text()}."
    other = getattr(change(first, rng, (part,)), part)
    return say(replace(second, **{part: other}), rng)


def qnli(rng: random.Random) -> dict:
    """A question and a sentence; label 0: the sentence answers it, 1: it is about something near by."""
    told = draw_event(rng, place=0.6, time=0.6)
    label = rng.randrange(2)
    part = rng.choice([part for part in ("who", "what", "place", "time") if getattr(told, part)])
    text = question(told, part, rng)
    answer = reword(told, rng, 0.3)
    if label:
        if part in ("place", "time") and rng.random() < 0.6:
            answer = replace(answer, **{part: None})  # the same event, and nothing about what was asked
        else:
            answer = change(answer, rng, tuple(other for other in ("who", "past", "what") if other != part))
    return {"question": text, "sentence": say(answer, rng), "label": label}


def rte(rng: random.Random) -> dict:
    """A text about two events and a hypothesis; label 0: it follows, 1: it does not, often with parts of both mixed."""
    first, second = (draw_event(rng, place=0.5, time=0.2, trait=0.15) for _ in range(2))
    texts = [say(one, rng, "active").rstrip(".") for one in (first, second)]
    text = f"{texts[0]} {rng.choice(('and', 'but', 'while'))} {_inside(texts[1])}."
    label = rng.randrange(2)
    told = rng.choice((first, second))
    if not label:
        hypothesis = reword(generalise(told, rng), rng, 0.3)
    elif rng.random() < 0.6:
        other = second if told is first else first
        hypothesis = replace(told, **{part: getattr(other, part) for part in (rng.choice(("who", "what")),)})
    else:
        hypothesis = replace(told, **rng.choice(({"who": person(rng)}, {"what": thing(rng)})))
    return {"sentence1": text, "sentence2": say(hypothesis, rng), "label": label}


def _inside(text: str) -> str:
    """A sentence's beginning in the middle of another one."""
    return text[0].lower() + text[1:] if text.startswith("The ") else text
