"""Events of the pocket encoder's world: who did what to what, where and when, and the many ways to say it.

Shared by the encoder's pretraining text and by the pocket GLUE tasks: same words and constructions, other purposes.
"""

import random
from dataclasses import dataclass, replace

from pocket.world.words import word_list
from pocket.world.worlds import NAMES

# Lower-case word: another word for it.
SYNONYMS = {
    "big": "large", "small": "little", "fast": "quick", "old": "ancient", "strong": "powerful", "clever": "smart",
    "ill": "sick", "child": "kid", "street": "road", "forest": "wood", "shop": "store", "picture": "image",
    "story": "tale", "boat": "ship", "coat": "jacket", "found": "discovered", "saw": "noticed", "built": "constructed",
    "closed": "shut", "cleaned": "washed", "bought": "purchased", "mended": "repaired", "wanted": "desired",
    "took": "carried", "woman": "lady", "man": "fellow", "teacher": "instructor", "doctor": "physician",
    "house": "home",
}  # fmt: skip
# What excludes what.
OPPOSITES = {
    "big": "small", "old": "new", "fast": "slow", "strong": "weak", "clean": "dirty", "full": "empty", "hot": "cold",
    "heavy": "light", "rich": "poor", "young": "old", "tall": "short", "happy": "sad", "opened": "closed",
    "bought": "sold", "found": "lost", "built": "broke", "loved": "hated", "mended": "broke", "cheap": "dear",
    "clever": "stupid",
}  # fmt: skip
# Thing or person: the kind it belongs to.
KINDS = {
    "boy": "child", "girl": "child", "king": "man", "father": "man", "mother": "woman", "aunt": "woman",
    "book": "thing", "letter": "paper", "map": "paper", "picture": "thing", "lamp": "thing", "cup": "thing",
    "car": "vehicle", "boat": "vehicle", "bus": "vehicle", "coat": "clothing", "hat": "clothing", "shoe": "clothing",
    "knife": "tool", "hammer": "tool", "broom": "tool", "bread": "food", "cheese": "food", "soup": "food",
    "horse": "animal", "dog": "animal", "bird": "animal", "rose": "plant", "tree": "plant",
}  # fmt: skip
PEOPLE = word_list("man woman boy girl king father mother aunt teacher worker friend child doctor farmer player guest")
ANIMALS = word_list("horse dog bird cat mouse cow elephant")
OBJECTS = word_list(
    "book letter box map picture lamp cup car boat bus coat hat shoe knife hammer broom bread cheese soup horse dog "
    "bird rose tree table chair door window house machine toy key bell wheel stone bag"
)
TRAITS = {  # of people, and of things
    True: word_list("old young rich poor tall short strong weak happy sad clever busy tired ill"),
    False: word_list("big small old new heavy light clean dirty full empty cheap hot cold red blue green white black"),
}
# past and participle by base form
VERBS = {
    "find": ("found", "found"), "take": ("took", "taken"), "see": ("saw", "seen"), "bring": ("brought", "brought"),
    "buy": ("bought", "bought"), "build": ("built", "built"), "open": ("opened", "opened"),
    "close": ("closed", "closed"), "clean": ("cleaned", "cleaned"), "mend": ("mended", "mended"),
    "want": ("wanted", "wanted"), "keep": ("kept", "kept"), "draw": ("drew", "drawn"), "sell": ("sold", "sold"),
    "break": ("broke", "broken"), "lose": ("lost", "lost"), "love": ("loved", "loved"), "hide": ("hid", "hidden"),
    "send": ("sent", "sent"), "show": ("showed", "shown"),
}  # fmt: skip
PARTICIPLES = {past: participle for past, participle in VERBS.values()}
BASES = {past: base for base, (past, _) in VERBS.items()}
# Other words for verbs are regular, or the same in past and participle.
BASES |= {
    "discovered": "discover", "noticed": "notice", "constructed": "construct", "shut": "shut", "washed": "wash",
    "purchased": "purchase", "repaired": "repair", "desired": "desire", "carried": "carry", "hated": "hate",
}  # fmt: skip
PLACES = (
    "in the city", "in the garden", "at the station", "on the farm", "in the kitchen", "near the river",
    "in the school", "at the lake", "in the forest", "on the street", "in the shop", "on the island", "in the library",
    "at the party",
)  # fmt: skip
TIMES = (
    "in the morning", "in the evening", "last week", "last year", "at night", "after lunch", "in the winter",
    "before school", "two days ago", "on Monday", "on Sunday", "a month ago",
)  # fmt: skip


@dataclass(frozen=True)
class Phrase:
    """A name, or a noun with an adjective or none."""

    noun: str
    trait: str | None = None

    @property
    def is_name(self) -> bool:
        """Whether it is a name, which takes no article."""
        return self.noun[0].isupper()

    def text(self, article: str = "the") -> str:
        """The words with their article; a name alone."""
        if self.is_name:
            return self.noun
        words = [self.trait, self.noun] if self.trait else [self.noun]
        if article == "a" and words[0][0] in "aeiou":
            article = "an"
        return " ".join([article, *words])


@dataclass(frozen=True)
class Event:
    """One event. `past` is the verb's past form; place and time may be missing."""

    who: Phrase
    past: str
    what: Phrase
    place: str | None = None
    time: str | None = None


def person(rng: random.Random, names: float = 0.4, trait: float = 0.4) -> Phrase:
    """A name or a person; the numbers are the chances of a name, and of an adjective."""
    if rng.random() < names:
        return Phrase(rng.choice(NAMES))
    return Phrase(rng.choice(PEOPLE), rng.choice(TRAITS[True]) if rng.random() < trait else None)


def thing(rng: random.Random, trait: float = 0.5) -> Phrase:
    """A thing; `trait` is the chance of an adjective."""
    return Phrase(rng.choice(OBJECTS), rng.choice(TRAITS[False]) if rng.random() < trait else None)


def draw_event(rng: random.Random, place: float = 0.5, time: float = 0.4, trait: float = 0.4) -> Event:
    """A random event; the numbers are the chances that a part is there."""
    return Event(
        person(rng, trait=trait),
        rng.choice(list(VERBS.values()))[0],
        thing(rng, trait),
        rng.choice(PLACES) if rng.random() < place else None,
        rng.choice(TIMES) if rng.random() < time else None,
    )


def sentence(text: str) -> str:
    """With a capital and a full stop, unless it ends in a mark already."""
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def say(event: Event, rng: random.Random, style: str | None = None) -> str:
    """The event as a sentence: active, passive, with the time in front, or with who did it in front."""
    style = style or rng.choices(("active", "passive", "time", "cleft"), (5, 3, 2, 1))[0]
    who, what, place, time = event.who.text(), event.what.text(), event.place or "", event.time or ""
    if style == "passive":
        participle = PARTICIPLES.get(event.past, event.past)
        return sentence(f"{what} was {participle} by {who} {place} {time}")
    if style == "time" and time:
        return sentence(f"{time} , {who} {event.past} {what} {place}".replace(" ,", ","))
    if style == "cleft":
        return sentence(f"it was {who} who {event.past} {what} {place} {time}")
    return sentence(f"{who} {event.past} {what} {place} {time}")


def reword(event: Event, rng: random.Random, chance: float = 0.6) -> Event:
    """The same event in other words."""

    def other(word: str | None) -> str | None:
        return SYNONYMS[word] if word in SYNONYMS and rng.random() < chance else word

    def phrase(old: Phrase) -> Phrase:
        return old if old.is_name else Phrase(other(old.noun), other(old.trait))

    place = event.place
    if place and rng.random() < chance:
        head, _, noun = place.rpartition(" ")
        place = f"{head} {SYNONYMS.get(noun, noun)}"
    return Event(phrase(event.who), other(event.past), phrase(event.what), place, event.time)


def generalise(event: Event, rng: random.Random) -> Event:
    """An event that follows from this one: something left out, or a kind in place of a thing."""
    for _ in range(rng.randint(1, 2)):
        choice = rng.choice(("place", "time", "who", "what", "kind"))
        if choice in ("place", "time"):
            event = replace(event, **{choice: None})
        elif choice == "kind" and event.what.noun in KINDS:
            event = replace(event, what=Phrase(KINDS[event.what.noun], event.what.trait))
        elif choice in ("who", "what"):
            event = replace(event, **{choice: replace(getattr(event, choice), trait=None)})
    return event


def change(
    event: Event, rng: random.Random, parts: tuple[str, ...] = ("who", "past", "what", "place", "time")
) -> Event:
    """One part of the event replaced by another, opposite where the part has an opposite."""
    present = [part for part in parts if getattr(event, part) is not None]
    part = rng.choice(present)
    old = getattr(event, part)
    while True:
        if part == "past":
            new = OPPOSITES.get(old) if rng.random() < 0.5 else None
            new = new or rng.choice(list(VERBS.values()))[0]
        elif part in ("place", "time"):
            new = rng.choice(PLACES if part == "place" else TIMES)
        elif not old.is_name and old.trait in OPPOSITES and rng.random() < 0.5:
            new = replace(old, trait=OPPOSITES[old.trait])
        else:
            new = person(rng) if part == "who" else replace(thing(rng), trait=old.trait)
        if new != old:
            return replace(event, **{part: new})


def question(event: Event, part: str, rng: random.Random) -> str:
    """A question about the event whose answer is `part`: who, what, place or time."""
    who, what = event.who.text(), event.what.text()
    base = BASES[event.past]
    if part == "who":
        return f"Who {event.past} {what}?"
    if part == "what":
        return f"What did {who} {base}?"
    word = "Where" if part == "place" else rng.choice(("When", "At what time"))
    return f"{word} did {who} {base} {what}?"
