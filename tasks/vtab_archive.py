"""The usual archive of VTAB-1K: `<root>/<task>/{train800,val200,train800val200,test}.txt` and the images they name.

A line of a list is an image's path below the task's folder, a space and its class. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from eva_bench.assets.catalogue import default_root
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of

LISTS = {
    "train": "train800.txt",
    "validation": "val200.txt",
    "train_validation": "train800val200.txt",
    "test": "test.txt",
}
TRAINING_IMAGES = {"train": 800, "validation": 200, "train_validation": 1000}
CHECKSUMS = "checksums.json"


def load(entry: dict[str, Any], name: str, split: str, root: str | None) -> list[dict[str, Any]]:
    """Rows {"image": path, "label": class} of a split.

    Raises:
        UserError: no such folder or list, an image that is not there, a label outside the class count.
    """
    return [
        {"image": image, "label": label}
        for image, label in _rows(task_folder(entry, name, root), split, entry["classes"])
    ]


def identity(entry: dict[str, Any], name: str, root: str | None) -> dict[str, Any]:
    """What the copy is: checksums of the lists, of names and sizes of the images, and the classes' histogram.

    With `deviation` if its sizes are not the official ones, and with the checksum of all images if `make fetch` has
    computed it.
    """
    folder, classes = task_folder(entry, name, root), entry["classes"]
    found: dict[str, Any] = {"sha256": {list_: sha256_of(_list_file(folder, split)) for split, list_ in LISTS.items()}}
    found["rows"] = {split: len(_rows(folder, split, classes)) for split in LISTS}
    found["images"] = _names_and_sizes(folder, classes)
    if (folder / CHECKSUMS).is_file():
        found["images_sha256"] = _images_sha256(folder / CHECKSUMS)
    if deviation := _deviation(entry, folder):
        found["deviation"] = f"{name}: {deviation}"
    return found


def _images_sha256(file: Path) -> str:
    try:
        return str(json.loads(file.read_bytes())["images_sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"'{file.parent.name}/{file.name}' is damaged ({type(error).__name__}): remove it; "
            "`make fetch` writes it again."
        ) from error


def task_folder(entry: dict[str, Any], name: str, root: str | None) -> Path:
    """Where a task's lists are.

    Raises:
        UserError: not there; says where the archive comes from.
    """
    base = Path(root) if root else archive_root()
    folder = base / entry["folder"]
    if not folder.is_dir():
        where = "data.root" if root else "data/vtab-1k"
        raise UserError(
            f"{where} has no folder '{entry['folder']}' of the VTAB-1K archive for '{name}': unpack vtab-1k.zip there "
            "(README of github.com/luogen1996/RepAdapter), then make fetch TASK=vtab1k verifies it."
        )
    return folder


def archive_root() -> Path:
    """Where the archive lies unless data.root says otherwise."""
    return default_root().with_name("vtab-1k")


def verify(entry: dict[str, Any], name: str, root: str | None = None) -> str:
    """Check a task completely: lists, official sizes, classes, and that every image decodes; note the checksums.

    Writes `checksums.json` beside the lists: SHA-256 of every image, one over all of them, and the classes' histogram.

    Returns:
        What was found, in a few words.

    Raises:
        UserError: what is wrong first.
    """
    folder = task_folder(entry, name, root)
    if deviation := _deviation(entry, folder):
        raise UserError(f"{name}: {deviation}.")
    rows = [*_rows(folder, "train_validation", entry["classes"]), *_rows(folder, "test", entry["classes"])]
    digests = {}
    for image, _ in rows:
        try:
            with Image.open(image) as opened:
                opened.load()
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{name}: image '{Path(image).name}' cannot be decoded: {error}") from error
        digests[str(Path(image).relative_to(folder))] = sha256_of(Path(image))
    total = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    histogram = {split: _histogram(folder, split, entry["classes"]) for split in LISTS}
    facts = {"images_sha256": total, "histogram": histogram, "sha256": digests}
    (folder / CHECKSUMS).write_text(json.dumps(facts, indent=1) + "\n")
    return f"{len(digests)} images in {entry['classes']} classes, checksum {total[:12]}"


def _deviation(entry: dict[str, Any], folder: Path) -> str | None:
    """How the copy differs from the official sizes, or None."""
    official = TRAINING_IMAGES | {"test": entry["test_images"]}
    for split, wanted in official.items():
        if (n := len(_rows(folder, split, entry["classes"]))) != wanted:
            return f"{LISTS[split]} has {n} images, officially {wanted}"
    if (n := len(_histogram(folder, "test", entry["classes"]))) != entry["classes"]:
        return f"test.txt has {n} classes, officially {entry['classes']}"
    return None


def _histogram(folder: Path, split: str, classes: int) -> dict[int, int]:
    return dict(sorted(Counter(label for _, label in _rows(folder, split, classes)).items()))


def _list_file(folder: Path, split: str) -> Path:
    path = folder / LISTS[split]
    if not path.is_file():
        raise UserError(f"Folder '{folder.name}' of the VTAB-1K archive has no {LISTS[split]}.")
    return path


def _rows(folder: Path, split: str, classes: int) -> tuple[tuple[str, int], ...]:
    path = _list_file(folder, split)
    return _read_list(path, path.stat().st_mtime_ns, classes)


@lru_cache(maxsize=80)
def _read_list(path: Path, modified_ns: int, classes: int) -> tuple[tuple[str, int], ...]:
    """(image, label) of every line of a list; read again when the file has changed."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path.parent.name}/{path.name} is not text in UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        name, _, label = line.strip().rpartition(" ")
        where = f"{path.parent.name}/{path.name} line {number}"
        if not name or not (label.isascii() and label.isdigit()):  # `²` is a digit, too
            raise UserError(f"{where}: expected '<image> <class>', found '{line.strip()}'.")
        if int(label) >= classes:
            raise UserError(f"{where}: class {label} of '{name}' is outside 0 to {classes - 1}.")
        if not (path.parent / name).is_file():
            raise UserError(f"{where} names '{name}', which is not there.")
        rows.append((str(path.parent / name), int(label)))
    if not rows:
        raise UserError(f"{path.parent.name}/{path.name} names no image.")
    return tuple(rows)


def _names_and_sizes(folder: Path, classes: int) -> str:
    """Checksum over names and sizes of all images: notices another copy without reading gigabytes."""
    digest = hashlib.sha256()
    for split in ("train_validation", "test"):
        for image, _ in _rows(folder, split, classes):
            path = Path(image)
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()
