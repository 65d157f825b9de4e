"""Pocket MRPC, QQP and STS-B: do two texts say or ask the same, and how much do they share."""

import random

from pocket.world.events import Event, Phrase, change, draw_event, person, reword, say, thing
from pocket.world.opinions import INTENTS, activity, ask

PARAPHRASES, DUPLICATES = 0.6, 0.4  # shares; in MRPC 0.67, in QQP 0.37
ASKED, FORMS = list(INTENTS)[:4], 2  # more intents, in more forms each, would need more rows than there are


def mrpc(rng: random.Random) -> dict:
    """Two sentences; label 1: the second tells the first again. Otherwise one part differs, or who and whom."""
    label = int(rng.random() < PARAPHRASES)
    first = draw_event(rng, place=0.6, time=0.5)
    second = reword(first, rng) if label else change(reword(first, rng, 0.3), rng)
    return {"sentence1": say(first, rng), "sentence2": say(second, rng), "label": label}


def qqp(rng: random.Random) -> dict:
    """Two questions; label 1: same intent about the same activity. Otherwise another intent, or another activity."""
    label = int(rng.random() < DUPLICATES)
    intent, doing = rng.choice(ASKED), activity(rng)
    intent2, doing2 = intent, doing
    if not label and rng.random() < 0.5:
        intent2 = rng.choice([name for name in ASKED if name != intent])
    while not label and (intent2, doing2) == (intent, doing):
        doing2 = activity(rng)
    texts = [ask(*asked, rng, reword=0.2, forms=FORMS) for asked in ((intent, doing), (intent2, doing2))]
    return {"question1": texts[0], "question2": texts[1], "label": label}


# What each part of an event weighs in the similarity.
_WEIGHTS = {"who": 1.25, "past": 1.25, "what": 1.5, "place": 0.5, "time": 0.5}


def stsb(rng: random.Random) -> dict:
    """Two sentences; label: 5 times the share of parts that are the same, half for a noun with another adjective."""
    first = draw_event(rng, place=1, time=0.5)
    second, label, total = reword(first, rng, 0.4), 0.0, 0.0
    kept = rng.random()
    for part, weight in _WEIGHTS.items():
        if getattr(first, part) is None:
            continue
        total += weight
        if rng.random() < kept:
            label += weight
            continue
        second, share = _other(first, second, part, rng)
        label += share * weight
    return {"sentence1": say(first, rng), "sentence2": say(second, rng), "label": round(5 * label / total, 2)}


def _other(first: Event, second: Event, part: str, rng: random.Random) -> tuple[Event, float]:
    """The second event with another part, and how much of the part is still the same."""
    old = getattr(first, part)
    if isinstance(old, Phrase) and not old.is_name and rng.random() < 0.3:
        new = Phrase(old.noun, (person(rng, names=0, trait=1) if part == "who" else thing(rng, trait=1)).trait)
        return _with(second, part, new), 1.0 if new == old else 0.5
    new = getattr(change(first, rng, (part,)), part)
    same = isinstance(old, Phrase) and new.noun == old.noun
    return _with(second, part, new), 0.5 if same else 0.0


def _with(second: Event, part: str, new) -> Event:
    return Event(**{**vars(second), part: new})
