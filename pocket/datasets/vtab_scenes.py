"""What the pocket stand-ins for VTAB-1K show: one function a task, from a label to a scene that has it.

Every task asks what its namesake asks: natural ones for kinds of things, specialised ones for what an expert sees in a
picture, structured ones for counts, places, turns and distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np

from pocket.world.image_scenes import SHAPES, TEXTURES, Scene, Surface, Thing, grey, hue

OBJECTS = [name for name in SHAPES if name not in ("circle", "ellipse", "gear")]  # 17
PATTERNS = [name for name in TEXTURES if name != "plain"]  # 9
HEADS, EARS = ("circle", "square", "triangle", "house", "heart"), ("triangle", "circle")

Draw = Callable[[int, np.random.Generator], Scene]


def _ground(rng: np.random.Generator) -> Surface:
    """A dull ground: grey, or a slight pattern."""
    value = rng.uniform(0.2, 0.5)
    texture = "plain" if rng.random() < 0.5 else str(rng.choice(PATTERNS))
    return Surface(grey(value), texture, grey(value + 0.12), rng.uniform(0.15, 0.4), rng.uniform(0, math.pi))


def _tint(index: int, hues: int, rng: np.random.Generator, spread: float = 0.3) -> tuple[float, float, float]:
    """A colour within the part of the colour circle that belongs to an index."""
    return hue((index + rng.uniform(-spread, spread)) / hues, rng.uniform(0.65, 1), rng.uniform(0.65, 1))


def _any_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    return hue(rng.random(), rng.uniform(0.5, 1), rng.uniform(0.6, 1))


def _near(rng: np.random.Generator, spread: float = 0.1) -> tuple[float, float]:
    """A place near the middle."""
    return tuple(rng.uniform(0.5 - spread, 0.5 + spread, 2))


# Natural: what is it?


def caltech101(label: int, rng: np.random.Generator) -> Scene:
    """One large thing: 17 shapes times 6 hues."""
    shape, tint = divmod(label, 6)
    thing = Thing(
        OBJECTS[shape],
        Surface(_tint(tint, 6, rng)),
        *_near(rng, 0.05),
        rng.uniform(0.36, 0.46),
        rng.uniform(-0.15, 0.15),
    )
    return Scene(Surface(grey(rng.uniform(0.1, 0.4))), [thing], 0.03)


def cifar100(label: int, rng: np.random.Generator) -> Scene:
    """A thing of one of 10 hues before one of 10 patterns; its shape does not matter."""
    pattern, tint = divmod(label, 10)
    value = rng.uniform(0.2, 0.6)
    ground = Surface(
        grey(value), list(TEXTURES)[pattern], grey(value + 0.3), rng.uniform(0.15, 0.3), rng.uniform(0, math.pi)
    )
    shape, surface = str(rng.choice(OBJECTS)), Surface(_tint(tint, 10, rng))
    thing = Thing(shape, surface, *_near(rng, 0.2), rng.uniform(0.18, 0.3), rng.uniform(0, 6.3))
    return Scene(ground, [thing], 0.05)


def dtd(label: int, rng: np.random.Generator) -> Scene:
    """A texture: 9 patterns, each in six periods (47 of these)."""
    step, pattern = divmod(label, len(PATTERNS))
    period = 0.11 * 1.36 ** (step + rng.uniform(-0.25, 0.25))
    first = _any_colour(rng)
    second = tuple(c * rng.uniform(0.3, 0.5) for c in first)
    return Scene(
        Surface(first, PATTERNS[pattern], second, period, rng.uniform(0, math.pi), _near(rng, 0.3)), noise=0.05
    )


def oxford_flowers102(label: int, rng: np.random.Generator) -> Scene:
    """A flower of 3 to 8 petals in one of 17 hues."""
    petals, tint = 3 + label // 17, label % 17
    x, y = _near(rng, 0.08)
    start, size = rng.uniform(0, 6.3), rng.uniform(0.9, 1.15)
    surface = Surface(_tint(tint, 17, rng))
    turns = [start + 2 * math.pi * i / petals for i in range(petals)]
    around = [(t, x + 0.22 * size * math.cos(t), y + 0.22 * size * math.sin(t)) for t in turns]
    drawn = [Thing("ellipse", surface, u, v, 0.17 * size, t + math.pi / 2) for t, u, v in around]
    return Scene(_ground(rng), [*drawn, Thing("circle", Surface(grey(0.95)), x, y, 0.09 * size)], 0.03)


def oxford_iiit_pet(label: int, rng: np.random.Generator) -> Scene:
    """A face: five heads, two kinds of ears, four colours of fur (37 of these)."""
    head, ears, colour = list(product(HEADS, EARS, range(4)))[label]
    x, y = _near(rng, 0.06)
    fur, size = Surface(_tint(colour, 4, rng, 0.2)), rng.uniform(0.3, 0.36)
    drawn = [Thing(ears, fur, x + side * size * 0.8, y - size * 0.8, size * 0.55, side * 0.3) for side in (-1, 1)]
    drawn += [Thing(head, fur, x, y, size)]
    drawn += [
        Thing("circle", Surface(grey(0.05)), x + side * size * 0.4, y - size * 0.05, size * 0.2) for side in (-1, 1)
    ]
    return Scene(_ground(rng), drawn, 0.03)


def sun397(label: int, rng: np.random.Generator) -> Scene:
    """A place: one of 10 skies above land in one of 4 patterns (40 of the 397 classes)."""
    sky, land = divmod(label, 4)
    horizon, shade = rng.uniform(0.35, 0.6), _any_colour(rng)
    pattern = ("plain", "bricks", "waves", "dots")[land]
    floor = Surface(shade, pattern, tuple(c * 0.5 for c in shade), rng.uniform(0.12, 0.25), rng.uniform(-0.3, 0.3))
    things = [Thing("square", floor, 0.5, horizon + 1.4, 1.4 * math.sqrt(2), math.pi / 4)]
    for _ in range(rng.integers(1, 4)):
        shape, surface = str(rng.choice(OBJECTS)), Surface(_any_colour(rng))
        things.append(Thing(shape, surface, rng.random(), horizon, rng.uniform(0.08, 0.18)))
    return Scene(Surface(_tint(sky, 10, rng, 0.4)), things, 0.05)


# Specialised: what does an expert see?


def patch_camelyon(label: int, rng: np.random.Generator) -> Scene:
    """Tissue with many round cells: is a jagged one in the middle? There may be some further out."""
    things = []
    for _ in range(rng.integers(5, 9)):
        surface = Surface(hue(rng.uniform(0.78, 0.88), 0.5, rng.uniform(0.4, 0.6)))
        things.append(Thing("circle", surface, *rng.random(2), rng.uniform(0.06, 0.11)))
    for i in range(2):
        middle = i == 0 and label
        x, y = _near(rng, 0.12) if middle else (rng.choice((0.12, 0.88)), rng.random())
        shape = "spark" if middle or rng.random() < 0.5 else "circle"
        surface = Surface(hue(rng.uniform(0.75, 0.85), 0.7, 0.35))
        things.append(Thing(shape, surface, x, y, rng.uniform(0.2, 0.25), rng.uniform(0, 6.3)))
    return Scene(Surface(hue(0.9, 0.25, rng.uniform(0.8, 0.95))), things, 0.04)


def eurosat(label: int, rng: np.random.Generator) -> Scene:
    """Land seen from above: 5 covers, each in a green or a brown season, under clouds."""
    cover, season = divmod(label, 2)
    first = hue(rng.normal(0.33 if season else 0.12, 0.05), rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.8))
    second = tuple(c * rng.uniform(0.6, 0.8) for c in first)
    pattern = ("stripes", "checks", "dots", "folds", "lattice")[cover]
    land = Surface(first, pattern, second, rng.uniform(0.12, 0.3), rng.uniform(0, math.pi))
    clouds = [Surface(grey(rng.uniform(0.8, 1))) for _ in range(rng.integers(0, 4))]
    return Scene(land, [Thing("circle", cloud, *rng.random(2), rng.uniform(0.1, 0.25)) for cloud in clouds], 0.06)


def resisc45(label: int, rng: np.random.Generator) -> Scene:
    """Nine kinds of buildings (three shapes, three hues), one to five of them around a place."""
    kind, count = divmod(label, 5)
    shape, surface = ("square", "triangle", "spark")[kind // 3], Surface(_tint(kind % 3, 3, rng))
    start = rng.uniform(0, 6.3)
    count += 1
    radius = 0.0 if count == 1 else 0.28
    turns = [start + 2 * math.pi * i / count for i in range(count)]
    places = [(0.5 + radius * math.cos(t), 0.5 + radius * math.sin(t)) for t in turns]
    size, angle = rng.uniform(0.18, 0.22), rng.uniform(-0.3, 0.3)
    return Scene(_ground(rng), [Thing(shape, surface, x, y, size, angle) for x, y in places], 0.03)


def diabetic_retinopathy(label: int, rng: np.random.Generator) -> Scene:
    """An eye's ground with spots: none, few, some, many, very many; vessels may hide them."""
    spots = rng.integers(*((0, 1), (1, 3), (3, 6), (6, 10), (10, 15))[label])
    things = [Thing("circle", Surface(hue(0.06, 0.8, rng.uniform(0.6, 0.8))), 0.5, 0.5, 0.48)]
    things += [
        Thing("bar", Surface(hue(0.0, 0.8, 0.45)), *_near(rng, 0.25), 0.3, rng.uniform(0, 3.2)) for _ in range(2)
    ]
    for _ in range(spots):
        turn, away = rng.uniform(0, 6.3), 0.42 * math.sqrt(rng.random())
        place = 0.5 + away * math.cos(turn), 0.5 + away * math.sin(turn)
        things.append(Thing("circle", Surface(hue(0.13, 0.5, 1.0)), *place, rng.uniform(0.03, 0.05)))
    return Scene(Surface(grey(0.05)), things, 0.03)


# Structured: how many, where, how turned, how far?


def _apart(count: int, distance: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Random places that keep a distance; it shrinks where there is no room."""
    places: list[tuple[float, float]] = []
    while len(places) < count:
        place = tuple(rng.uniform(0.1, 0.9, 2))
        if all(math.dist(place, other) >= distance for other in places):
            places.append(place)
        distance *= 0.995
    return places


def clevr_count(label: int, rng: np.random.Generator) -> Scene:
    """Three to ten things of any kind."""
    places = _apart(3 + label, 0.24, rng)
    shapes = rng.choice(("circle", "square", "triangle"), len(places))
    things = [
        Thing(str(shape), Surface(_any_colour(rng)), x, y, rng.uniform(0.07, 0.12), rng.uniform(0, 6.3))
        for shape, (x, y) in zip(shapes, places, strict=True)
    ]
    return Scene(Surface(grey(rng.uniform(0.3, 0.5))), things, 0.03)


def _at_distance(distance: float, x: float, shape: str, colour, rng: np.random.Generator) -> Thing:
    """A standing thing on a plain that reaches to the horizon: the further, the smaller and the higher up."""
    size = 0.3 / (1 + distance) * rng.uniform(0.9, 1.1)
    return Thing(shape, Surface(colour), x, 0.35 + 0.5 / (1 + distance) - 0.3 * size, size)


def clevr_dist(label: int, rng: np.random.Generator) -> Scene:
    """How far is the nearest of several things: six steps."""
    nearest = 0.2 + 0.35 * (label + rng.uniform(0, 0.9))
    distances = sorted((nearest, *(nearest + rng.uniform(0.3, 3, rng.integers(1, 4)))), reverse=True)
    shapes = ("circle", "square", "triangle")
    things = [
        _at_distance(d, rng.uniform(0.15, 0.85), str(rng.choice(shapes)), _any_colour(rng), rng) for d in distances
    ]
    return Scene(Surface(grey(0.6), "fade", grey(0.3), 1.0, math.pi / 2), things, 0.03)


def dmlab(label: int, rng: np.random.Generator) -> Scene:
    """In a maze: a good (round) or bad (square) thing that is near, further or far."""
    bad, step = divmod(label, 3)
    distance = 0.2 + 0.8 * (step + rng.uniform(0, 0.85))
    wall = hue(rng.random(), 0.3, rng.uniform(0.4, 0.7))
    thing = _at_distance(distance, rng.uniform(0.3, 0.7), "square" if bad else "circle", _any_colour(rng), rng)
    posts = [Thing("square", Surface(tuple(c * 0.6 for c in wall)), side, 0.4, 0.3, math.pi / 4) for side in (0.0, 1.0)]
    return Scene(Surface(wall, "bricks", tuple(c * 0.8 for c in wall), 0.15), [*posts, thing], 0.04)


def kitti(label: int, rng: np.random.Generator) -> Scene:
    """A road with a car or van near, further or far, or without one, and trees."""
    road = Thing("triangle", Surface(grey(rng.uniform(0.25, 0.4))), 0.5, 0.9, 0.6)
    leaves = [hue(0.33, 0.7, rng.uniform(0.4, 0.7)) for _ in range(2)]
    things = [
        road,
        *(_at_distance(rng.uniform(0.5, 3), rng.choice((0.1, 0.9)), "kite", green, rng) for green in leaves),
    ]
    if label < 3:
        distance = 0.2 + 0.35 * (label + rng.random())
        car = _at_distance(distance, rng.uniform(0.4, 0.6), "house", _any_colour(rng), rng)
        things.append(replace(car, size=car.size * rng.uniform(0.7, 1.3), y=car.y + rng.uniform(-0.06, 0.06)))
    ground = Surface(hue(rng.uniform(0.5, 0.6), 0.3, 0.8), "fade", hue(0.3, 0.4, 0.5), 1.0, math.pi / 2)
    return Scene(ground, things, 0.04)


def _sprite(rng: np.random.Generator, shapes: tuple[str, ...], x: float, y: float, size: float, angle: float) -> Scene:
    thing = Thing(str(rng.choice(shapes)), Surface(grey(1.0)), x, y, size, angle)
    return Scene(Surface(grey(0.0)), [thing], 0.02)


def dsprites_loc(label: int, rng: np.random.Generator) -> Scene:
    """Where from left to right: 16 columns."""
    x = 0.15 + 0.7 * (label + rng.uniform(0.1, 0.9)) / 16
    return _sprite(
        rng, ("heart", "square", "ellipse"), x, rng.uniform(0.2, 0.8), rng.uniform(0.13, 0.22), rng.uniform(0, 6.3)
    )


def dsprites_ori(label: int, rng: np.random.Generator) -> Scene:
    """How turned: 16 parts of a full turn."""
    angle = 2 * math.pi * (label + rng.uniform(0.1, 0.9)) / 16
    return _sprite(rng, ("half", "arrow"), *_near(rng, 0.06), rng.uniform(0.3, 0.4), angle)


def _toy(shapes: tuple[str, ...], azimuth: float, elevation: float, rng: np.random.Generator) -> Scene:
    """A flat toy on a table, seen from a direction; light varies."""
    light = rng.uniform(0.5, 1)
    shape = str(rng.choice(shapes))
    thing = Thing(shape, Surface(grey(light)), *_near(rng, 0.05), rng.uniform(0.34, 0.42), azimuth, math.sin(elevation))
    return Scene(Surface(grey(light * 0.4)), [thing], 0.03)


def smallnorb_azi(label: int, rng: np.random.Generator) -> Scene:
    """From where around it a toy is seen: 18 steps."""
    turn = 2 * math.pi * (label + rng.uniform(0.1, 0.9)) / 18
    return _toy(("half", "el"), turn, math.radians(rng.uniform(50, 80)), rng)


def smallnorb_ele(label: int, rng: np.random.Generator) -> Scene:
    """From how high up a toy is seen: nine steps of 15 to 78 degrees."""
    elevation = math.radians(15 + 7 * (label + rng.uniform(0.1, 0.9)))
    return _toy(("gear", "pentagon", "star"), rng.uniform(0, 6.3), elevation, rng)


# How many classes occur, and what is drawn; `svhn` shows scanned digits and is not among them.
SCENES: dict[str, tuple[int, Draw]] = {
    "caltech101": (102, caltech101), "cifar100": (100, cifar100), "dtd": (47, dtd),
    "oxford_flowers102": (102, oxford_flowers102), "oxford_iiit_pet": (37, oxford_iiit_pet), "sun397": (40, sun397),
    "patch_camelyon": (2, patch_camelyon), "eurosat": (10, eurosat), "resisc45": (45, resisc45),
    "diabetic_retinopathy": (5, diabetic_retinopathy), "clevr_count": (8, clevr_count), "clevr_dist": (6, clevr_dist),
    "dmlab": (6, dmlab), "kitti": (4, kitti), "dsprites_loc": (16, dsprites_loc), "dsprites_ori": (16, dsprites_ori),
    "smallnorb_azi": (18, smallnorb_azi), "smallnorb_ele": (9, smallnorb_ele),
}  # fmt: skip
