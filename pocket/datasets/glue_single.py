"""Pocket CoLA and SST-2: is a sentence acceptable, does it praise."""

import random

from pocket.world.events import ANIMALS, BASES, OBJECTS, PARTICIPLES, PEOPLE, PLACES, TIMES, TRAITS, sentence
from pocket.world.opinions import judgement
from pocket.world.worlds import NAMES

ACCEPTABLE = 0.65  # share; in CoLA it is 0.70
WORDS = 8  # of praise, and as many of blame

# base form, third person; some take no object
_DOES = {
    "see": "sees", "find": "finds", "open": "opens", "take": "takes", "clean": "cleans", "want": "wants",
    "keep": "keeps", "buy": "buys", "read": "reads", "love": "loves", "help": "helps", "bring": "brings",
}  # fmt: skip
_ALONE = {"sleep": "sleeps", "laugh": "laughs", "wait": "waits", "run": "runs", "sing": "sings", "cry": "cries"}
_REFLEXIVE = {
    "boy": "himself",
    "girl": "herself",
    "man": "himself",
    "woman": "herself",
    "king": "himself",
    "aunt": "herself",
}
_COUNTED = [noun for noun in OBJECTS if noun not in ("bread", "cheese", "soup")]  # "found cold soup" needs no article
_PLURALS = {noun: f"{noun}s" for noun in (*PEOPLE, *ANIMALS, *OBJECTS) if noun[-1] not in "sexhyd" and noun != "mouse"}
del _PLURALS["man"], _PLURALS["woman"]


def _subject(rng: random.Random) -> tuple[list[str], bool]:
    """Words of a subject, and whether it is plural; often with a noun of the other number just before the verb."""
    plural = rng.random() < 0.5
    noun = rng.choice(list(_PLURALS))
    words = ["the", _PLURALS[noun] if plural else noun]
    if rng.random() < 0.4:
        near = rng.choice(list(_PLURALS))
        words += [
            rng.choice(("near", "behind", "with")),
            "the",
            near if plural == (rng.random() < 0.7) else _PLURALS[near],
        ]
    return words, plural


def _present(rng: random.Random, wrong: bool) -> list[str]:
    """Subject and verb agree."""
    subject, plural = _subject(rng)
    alone = rng.random() < 0.3
    base = rng.choice(list(_ALONE if alone else _DOES))
    verb = base if plural != wrong else (_ALONE if alone else _DOES)[base]
    return [*subject, verb, *([] if alone else ["the", rng.choice(OBJECTS)]), *_end(rng)]


def _perfect(rng: random.Random, wrong: bool) -> list[str]:
    """After `has` comes the participle, after `did` the base form, after `will` the base form, alone the past."""
    past = rng.choice([past for past, participle in PARTICIPLES.items() if past != participle])
    forms = {"": past, "has": PARTICIPLES[past], "did not": BASES[past], "will": BASES[past]}
    auxiliary = rng.choice(list(forms))
    others = [form for other, form in forms.items() if form != forms[auxiliary] and (auxiliary or other != "did not")]
    form = rng.choice(others) if wrong else forms[auxiliary]
    return [rng.choice(NAMES), *auxiliary.split(), form, "the", rng.choice(OBJECTS), *_end(rng)]


def _order(rng: random.Random, wrong: bool) -> list[str]:
    """Article, adjective, noun, in this order and each once."""
    noun = [
        rng.choice(("the", "a")),
        rng.choice([w for w in TRAITS[False] if w[0] not in "aeiou"]),
        rng.choice(_COUNTED),
    ]
    if wrong:
        noun = rng.choice(([noun[0], noun[2], noun[1]], [noun[1], noun[0], noun[2]], noun[1:], ["the", "a", *noun[1:]]))
    past = rng.choice(list(PARTICIPLES))
    return [rng.choice(NAMES), past, *noun, *_end(rng)]


def _reflexive(rng: random.Random, wrong: bool) -> list[str]:
    """Himself and herself point to the subject, not to somebody else of the sentence."""
    who, other = rng.sample(list(_REFLEXIVE), 2)
    while _REFLEXIVE[who] == _REFLEXIVE[other]:
        other = rng.choice(list(_REFLEXIVE))
    verb = rng.choice(("saw", "cleaned", "helped", "loved", "found", "asked"))
    return ["the", who, "near", "the", other, verb, _REFLEXIVE[other if wrong else who], *_end(rng)]


def _asked(rng: random.Random, wrong: bool) -> list[str]:
    """A question moves what it asks for to the front; nothing is left at its old position."""
    name, base, noun = rng.choice(NAMES), rng.choice(list(_DOES)), rng.choice(OBJECTS)
    good = ["what", "did", name, base, *_end(rng), "?"]
    bad = rng.choice(
        (
            ["what", "did", name, base, "the", noun, "?"],
            ["what", name, "did", base, "?"],
            ["what", "did", base, name, "?"],
        )
    )
    return bad if wrong else good


def _end(rng: random.Random) -> list[str]:
    return rng.choice((*PLACES, *TIMES)).split() if rng.random() < 0.4 else []


def cola(rng: random.Random) -> dict:
    """One sentence; label 1: acceptable."""
    label = int(rng.random() < ACCEPTABLE)
    words = rng.choices((_present, _perfect, _order, _reflexive, _asked), (5, 4, 4, 2, 3))[0](rng, not label)
    return {"sentence": sentence(" ".join(words).replace(" ?", "?")), "label": label}


def sst2(rng: random.Random) -> dict:
    """One clause, or two of which the grammar says which counts; label 1: it praises."""
    good = rng.random() < 0.5
    one, other = judgement(good, rng, words=WORDS), judgement(not good, rng, words=WORDS)
    form = rng.random()
    if form < 0.5:
        text = one
    elif form < 0.75:
        text = f"{one} and {judgement(good, rng, words=WORDS)}"
    else:
        text = rng.choice((f"{other}, but {one}", f"although {other}, {one}", f"{one}, although {other}"))
    return {"sentence": sentence(text), "label": int(good)}
