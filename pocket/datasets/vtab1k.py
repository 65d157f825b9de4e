"""Stand-ins for the nineteen tasks of VTAB-1K: generated scenes, and real handwritten digits for `svhn`.

Labels are drawn evenly, and every split of a task has a separate random stream. Run as a module, it writes tasks in
the archive's layout: `python -m pocket.datasets.vtab1k <folder> [task ...]`.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from pocket.datasets.vtab_scenes import SCENES
from pocket.world.image_scenes import PIXELS, hue, render
from tasks.vtab_archive import LISTS

VERSION = 2
TASKS = (*SCENES, "svhn")
SIZES = {"train": 800, "validation": 500, "test": 2000}
ADDED = 200  # validation images that the final training has beside its own
PROBE = 16  # images of every split that the fingerprint sees


def generate(split: str, subset: str, n: int | None = None, draw: int = 0) -> list[dict]:
    """Rows of a split ("train", "validation", "train_validation", "test") of a task: n, or all, of any draw.

    Returns:
        {"image": uint8 array (pixels, pixels, 3), "label": int} each.
    """
    if split == "train_validation":
        return [*generate("train", subset, n), *generate("validation", subset, n or ADDED)]
    rng = np.random.default_rng((VERSION, zlib.crc32(subset.encode()), list(SIZES).index(split), draw))
    n = SIZES[split] if n is None else n
    if subset == "svhn":
        scans = _scans(split)
        chosen = rng.permutation(np.arange(n) % len(scans))  # there are fewer scans than rows; no two look alike
        return [_digit(*scans[i], rng) for i in chosen]
    classes, draw = SCENES[subset]
    labels = rng.integers(classes, size=n).tolist()
    return [{"image": render(draw(label, rng), rng), "label": label} for label in labels]


def fingerprint(subset: str) -> str:
    """Checksum of the first rows of every split."""
    digest = hashlib.sha256(f"{VERSION} {SIZES}".encode())
    for split in SIZES:
        for row in generate(split, subset, PROBE):
            digest.update(row["image"].tobytes() + bytes([row["label"] % 256]))
    return digest.hexdigest()


@cache
def _scans(split: str) -> list[tuple[np.ndarray, int]]:
    """The split's share of scikit-learn's digits: 8 x 8 pixels with values 0-16, and which digit it is."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - it takes a second and only this task needs it

    digits = load_digits()
    order = np.random.default_rng(VERSION).permutation(len(digits.target))
    first, last = {"train": (0, 800), "validation": (800, 1000), "test": (1000, None)}[split]
    return [(digits.images[i], int(digits.target[i])) for i in order[first:last]]


def _digit(scan: np.ndarray, label: int, rng: np.random.Generator) -> dict:
    """A house number: the digit in two colours, moved a little, with parts of others beside it."""
    size = int(rng.integers(25, 31))
    ink = np.zeros((PIXELS, PIXELS), np.float32)
    left, top = (int(rng.integers(0, PIXELS - size + 1)) for _ in range(2))
    for offset, drawn in ((0, scan), (size, scan[:, ::-1]), (-size, scan[::-1])):
        large = Image.fromarray(np.uint8(drawn * 15)).resize((size, size), Image.Resampling.BICUBIC)
        a, b = max(0, left + offset), min(PIXELS, left + offset + size)
        if a < b:
            ink[top : top + size, a:b] = np.asarray(large, np.float32)[:, a - left - offset : b - left - offset] / 255
    paper, pen = (np.float32(hue(rng.random(), rng.uniform(0.1, 0.6), v)) for v in (0.25, 0.95))
    image = paper + ink[..., None] * (pen - paper) + rng.normal(0, 0.04, (PIXELS, PIXELS, 3))
    return {"image": np.uint8(np.clip(image * 255, 0, 255)), "label": label}


def write(folder: Path, subset: str, sizes: dict[str, int] | None = None) -> None:
    """A task in the archive's layout: lists of images with their labels, and the images as PNG files.

    Args:
        folder: where the task's folder is made.
        subset: name of the task.
        sizes: images per split; the official number of training images by default.
    """
    base, lines = folder / subset, {}
    for split, n in (sizes or SIZES | {"validation": ADDED}).items():
        (base / "images" / split).mkdir(parents=True, exist_ok=True)
        lines[split] = []
        for i, row in enumerate(generate(split, subset, n)):
            name = f"images/{split}/{i:06d}.png"
            Image.fromarray(row["image"]).save(base / name)
            lines[split].append(f"{name} {row['label']}\n")
    lines["train_validation"] = lines["train"] + lines["validation"]
    for split, text in lines.items():
        (base / LISTS[split]).write_text("".join(text))


if __name__ == "__main__":
    for task in sys.argv[2:] or TASKS:
        write(Path(sys.argv[1]), task)
