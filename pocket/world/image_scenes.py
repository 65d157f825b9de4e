"""One renderer for all pocket images: things of a shape, colour, texture, place, size and turn on a textured ground.

Scenes are plain values, so that labels can be read from what was drawn. Images are drawn four times larger than they
are and reduced, which gives soft edges. Lengths are fractions of the image's side, angles are radians.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

VERSION = 1
PIXELS = 32
OVERSAMPLING = 4

Colour = tuple[float, float, float]  # red, green, blue, 0-1
Outline = tuple[tuple[float, float], ...]  # points between -1 and 1


def regular(corners: int, inner: float | None = None) -> Outline:
    """A regular polygon, or with `inner` a star whose inner corners lie at that radius."""
    n = corners if inner is None else 2 * corners
    radii = [1.0 if inner is None or i % 2 == 0 else inner for i in range(n)]
    return tuple((r * math.sin(2 * math.pi * i / n), -r * math.cos(2 * math.pi * i / n)) for i, r in enumerate(radii))


def block(*rows: str) -> Outline:
    """The outline of a letter-like block given as rows of # on a grid, walked column-wise (columns without gaps)."""
    height, width = len(rows), len(rows[0])
    scale = 2 / math.hypot(height, width)
    upper, lower = [], []
    for x in range(width):
        filled = [y for y in range(height) if rows[y][x] == "#"]
        upper += [(x, filled[0]), (x + 1, filled[0])]
        lower += [(x, filled[-1] + 1), (x + 1, filled[-1] + 1)]
    return tuple(((x - width / 2) * scale, (y - height / 2) * scale) for x, y in upper + lower[::-1])


def stretched(outline: Outline, factor: float) -> Outline:
    """The outline with its width multiplied."""
    return tuple((x * factor, y) for x, y in outline)


def _heart() -> Outline:
    turns = [2 * math.pi * i / 24 for i in range(24)]
    height = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
    return tuple((math.sin(t) ** 3, -h / 17) for t, h in zip(turns, height, strict=True))


def _moon() -> Outline:
    outer = [math.radians(a) for a in range(40, 321, 20)]
    return tuple((math.cos(a), math.sin(a)) for a in outer) + tuple(
        (0.45 + 0.72 * math.cos(a), 0.9 * math.sin(a)) for a in (math.radians(d) for d in range(300, 59, -20))
    )


SHAPES: dict[str, Outline] = {
    "circle": regular(24),
    "square": regular(4),
    "triangle": regular(3),
    "pentagon": regular(5),
    "star": regular(5, 0.45),
    "bar": stretched(regular(4), 0.35),
    "ellipse": stretched(regular(24), 0.55),
    "cross": block("..#..", "..#..", "#####", "..#..", "..#.."),
    "el": block("#..", "#..", "###"),
    "tee": block("###", ".#.", ".#."),
    "heart": _heart(),
    "moon": _moon(),
    "arrow": ((0, -1), (0.75, 0), (0.3, 0), (0.3, 0.95), (-0.3, 0.95), (-0.3, 0), (-0.75, 0)),
    "bolt": ((0.3, -1), (-0.6, 0.15), (0, 0.15), (-0.3, 1), (0.6, -0.2), (0.05, -0.2)),
    "half": tuple((math.cos(math.radians(a)), 0.4 - math.sin(math.radians(a))) for a in range(0, 181, 15)),
    "spark": regular(4, 0.3),
    "gear": regular(8, 0.7),
    "house": ((0, -1), (0.8, -0.2), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.2)),
    "fish": ((-1, -0.6), (-0.4, -0.1), (0.3, -0.6), (1, 0), (0.3, 0.6), (-0.4, 0.1), (-1, 0.6)),
    "kite": ((0, -1), (0.6, -0.3), (0, 1), (-0.6, -0.3)),
}


@cache
def _grid(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (x, y) of the pixel centres, each (pixels, pixels)."""
    centres = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
    return np.meshgrid(centres, centres)


def _wave(u: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * math.pi * u)


# Coordinates along and across the pattern, in periods -> share of the second colour, 0-1.
TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "stripes": lambda u, v: np.float32(np.sin(2 * math.pi * u) > 0),
    "waves": lambda u, v: np.float32(np.sin(2 * math.pi * (u + 0.3 * np.sin(2 * math.pi * v))) > 0),
    "checks": lambda u, v: np.float32(np.sin(2 * math.pi * u) * np.sin(2 * math.pi * v) > 0),
    "dots": lambda u, v: np.float32(_wave(u) * _wave(v) > 0.45),
    "lattice": lambda u, v: np.float32(np.maximum(_wave(u), _wave(v)) > 0.85),
    "rings": lambda u, v: np.float32(np.sin(2 * math.pi * np.hypot(u, v)) > 0),
    "bricks": lambda u, v: np.float32((v % 1 < 0.25) | ((u / 2 + 0.5 * (np.floor(v) % 2)) % 1 < 0.15)),
    "fade": lambda u, v: np.clip(0.5 + 0.4 * u, 0, 1),
    "folds": lambda u, v: _wave(u),
}


@dataclass(frozen=True)
class Surface:
    """A colour, or a texture of two colours."""

    colour: Colour
    texture: str = "plain"
    second: Colour = (0.0, 0.0, 0.0)
    period: float = 0.25
    angle: float = 0.0
    centre: tuple[float, float] = (0.5, 0.5)

    def paint(self, pixels: int) -> np.ndarray:
        """The colours of a whole image, (pixels, pixels, 3)."""
        if self.texture == "plain":
            return np.broadcast_to(np.float32(self.colour), (pixels, pixels, 3))
        x, y = _grid(pixels)
        x, y = (x - self.centre[0]) / self.period, (y - self.centre[1]) / self.period
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        share = TEXTURES[self.texture](cos * x + sin * y, cos * y - sin * x)[..., None]
        return np.float32(self.colour) * (1 - share) + np.float32(self.second) * share


@dataclass(frozen=True)
class Thing:
    """One drawn object. `size` is its radius; `squeeze` narrows its height, as if it were seen from the side."""

    shape: str
    surface: Surface
    x: float
    y: float
    size: float
    angle: float = 0.0
    squeeze: float = 1.0

    def mask(self, pixels: int) -> np.ndarray:
        """Share of every pixel that the thing covers, (pixels, pixels)."""
        large = pixels * OVERSAMPLING
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        points = [
            (
                (self.x + self.size * (cos * u - sin * v)) * large,
                (self.y + self.size * self.squeeze * (sin * u + cos * v)) * large,
            )
            for u, v in SHAPES[self.shape]
        ]
        image = Image.new("L", (large, large))
        ImageDraw.Draw(image).polygon(points, fill=255)
        return np.asarray(image.reduce(OVERSAMPLING), dtype=np.float32) / 255


@dataclass(frozen=True)
class Scene:
    """A ground and the things on it, the hindmost first. `noise` is the standard deviation of grain on the image."""

    ground: Surface
    things: Sequence[Thing] = field(default=())
    noise: float = 0.0


def render(scene: Scene, rng: np.random.Generator, pixels: int = PIXELS) -> np.ndarray:
    """The image of a scene, uint8 (pixels, pixels, 3); `rng` draws the grain."""
    image = np.array(scene.ground.paint(pixels))
    for thing in scene.things:
        mask = thing.mask(pixels)[..., None]
        image += mask * (thing.surface.paint(pixels) - image)
    if scene.noise:
        image += rng.normal(0, scene.noise, image.shape).astype(np.float32)
    return np.uint8(np.clip(image * 255, 0, 255).round())


def hue(turn: float, saturation: float = 0.8, value: float = 0.9) -> Colour:
    """A colour by its place on the colour circle (0-1)."""
    return colorsys.hsv_to_rgb(turn % 1, saturation, value)


def grey(value: float) -> Colour:
    """A grey from 0, black, to 1, white."""
    return (value, value, value)
