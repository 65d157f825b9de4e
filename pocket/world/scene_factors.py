"""Scenes that the pocket vision transformer is pretrained on, and what it is asked about them.

Asked of the image: which shapes and which hues are somewhere in it, the texture of its ground, the share that things
cover; and of every patch, which of its parts they cover. No pocket task asks for any of these; the tasks ask for
conjunctions, counts, places, turns, sizes and distances, which an adapter has to learn.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from pocket.world.image_scenes import PIXELS, TEXTURES, VERSION, Scene, Surface, Thing, grey, hue, render

SHAPES = ("circle", "square", "triangle", "pentagon", "star", "bar", "cross", "moon", "half", "kite")
HUES = 6
GROUNDS = tuple(TEXTURES)
PATCH, CELL = 8, 2  # pixels: of a patch, and of the cells in it whose cover is asked for


@dataclass
class Factors:
    """Images (n, pixels, pixels, 3) uint8 and what is asked about them, all arrays over the n images.

    Attributes:
        present: shapes, then hues, that are somewhere in the image, (n, shapes + hues) of 0 and 1.
        ground: index of the ground's texture, (n,).
        covered: share of each cell that things cover, (n, rows, columns) of cells.
    """

    images: np.ndarray
    present: np.ndarray
    ground: np.ndarray
    covered: np.ndarray

    def checksum(self) -> str:
        """Return the sha256 of all arrays."""
        digest = hashlib.sha256()
        for array in (self.images, self.present, self.ground, self.covered):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _thing(rng: np.random.Generator) -> tuple[Thing, int, int]:
    shape, tint = int(rng.integers(len(SHAPES))), int(rng.integers(HUES))
    colour = hue((tint + rng.uniform(-0.25, 0.25)) / HUES, rng.uniform(0.6, 1), rng.uniform(0.6, 1))
    size = float(rng.uniform(0.14, 0.42))
    x, y = rng.uniform(0.1, 0.9, 2)
    texture = "plain" if rng.random() < 0.85 else str(rng.choice(GROUNDS[1:]))
    surface = Surface(
        colour, texture, tuple(0.5 * c for c in colour), rng.uniform(0.1, 0.3), rng.uniform(0, np.pi), (x, y)
    )
    squeeze = rng.uniform(0.5, 1) if rng.random() < 0.3 else 1.0
    return Thing(SHAPES[shape], surface, x, y, size, rng.uniform(0, 2 * np.pi), squeeze), shape, tint


def _scene(rng: np.random.Generator) -> tuple[Scene, np.ndarray, int]:
    drawn = [_thing(rng) for _ in range(rng.choice((0, 1, 2, 3, 4), p=(0.05, 0.35, 0.3, 0.2, 0.1)))]
    present = np.zeros(len(SHAPES) + HUES, dtype=np.uint8)
    for _, shape, tint in drawn:
        present[[shape, len(SHAPES) + tint]] = 1
    ground = 0 if rng.random() < 0.3 else int(rng.integers(len(GROUNDS)))
    first = hue(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.1, 0.9)) if rng.random() < 0.7 else grey(rng.random())
    second = tuple(np.clip(np.array(first) + rng.choice((-1, 1)) * rng.uniform(0.2, 0.5), 0, 1))
    surface = Surface(
        first, GROUNDS[ground], second, rng.uniform(0.1, 0.4), rng.uniform(0, np.pi), tuple(rng.uniform(0.2, 0.8, 2))
    )
    return Scene(surface, [thing for thing, _, _ in drawn], rng.uniform(0, 0.05)), present, ground


def draw(n: int, stream: int) -> Factors:
    """The first n scenes of a random stream."""
    rng = np.random.default_rng((VERSION, stream))
    cells = PIXELS // CELL
    factors = Factors(
        np.empty((n, PIXELS, PIXELS, 3), np.uint8),
        np.empty((n, len(SHAPES) + HUES), np.uint8),
        np.empty(n, np.int64),
        np.zeros((n, cells, cells), np.float32),
    )
    for i in range(n):
        scene, factors.present[i], factors.ground[i] = _scene(rng)
        factors.images[i] = render(scene, rng)
        free = np.ones((PIXELS, PIXELS), np.float32)
        for thing in scene.things:
            free *= 1 - thing.mask(PIXELS)
        factors.covered[i] = 1 - free.reshape(cells, CELL, cells, CELL).mean((1, 3))
    return factors
