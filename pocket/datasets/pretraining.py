"""Held-out data of what the pocket models were pretrained on: how much of it a fine-tuned model has forgotten.

Texts and scenes are drawn from the generators of pretraining, from random streams that pretraining did not read.
Windows of control come from a file, because experts take a simulator and minutes to play
(`python -m pocket.pretrain.held_out`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from eva_bench.system.paths import POCKET_WEIGHTS
from pocket.world import corpus, encoder_corpus, exam_text
from pocket.world.scene_factors import draw

VERSION = 1
# Of texts and scenes: "train" is what pretraining itself has read; "test" neither that nor what measured it.
STREAMS = {"train": "train", "test": "forgetting"}
SCENES_STREAMS = {"train": 0, "test": 2}
WINDOWS = POCKET_WEIGHTS / "held_out" / "decision.npz"

Rows = list[dict[str, Any]]


def generate(split: str, subset: str) -> Rows:
    """Rows of one model's pretraining data.

    Args:
        split: "test", held out; language, exam and vision also have "train", for what is fitted to two pretrainings.
        subset: language, exam, encoder, vision or decision.

    Returns:
        language, exam: {"text"}; encoder: {"text", "pair"}, where pair may be None; vision: {"image": uint8 (pixels,
        pixels, 3), "present": float32 of 0 and 1, "ground": int}; decision: inputs and actions of one window.
    """
    if subset in _BY_STREAM and split in STREAMS:
        return _BY_STREAM[subset](split)
    if split != "test":
        raise ValueError(f"there is no split {split!r} of this pretraining data")
    return _HELD_OUT[subset]()


def fingerprint(subset: str) -> str:
    """Checksum of all rows."""
    digest = hashlib.sha256(f"{VERSION} {subset}".encode())
    for row in generate("test", subset):
        for value in row.values():
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


def _language(split: str) -> Rows:
    return [{"text": text} for text in corpus.first_documents(STREAMS[split], 256)]


def _exam(split: str) -> Rows:
    """Questions alone: what the language model had learnt before, the exam's pretraining has already driven out."""
    rng = random.Random(f"pocket exam {exam_text.VERSION} {STREAMS[split]}")
    return [{"text": "".join(exam_text.example(rng))} for _ in range(160)]


def _encoder() -> Rows:
    return [{"text": text, "pair": pair} for text, pair in islice(encoder_corpus.documents(STREAMS["test"]), 192)]


def _vision(split: str) -> Rows:
    drawn = draw(300, SCENES_STREAMS[split])
    columns = zip(drawn.images, drawn.present.astype(np.float32), drawn.ground.tolist(), strict=True)
    return [{"image": image, "present": present, "ground": ground} for image, present, ground in columns]


def _decision() -> Rows:
    with np.load(WINDOWS) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return [{name: value[i] for name, value in arrays.items()} for i in range(len(arrays["states"]))]


_BY_STREAM: dict[str, Callable[[str], Rows]] = {"language": _language, "exam": _exam, "vision": _vision}
_HELD_OUT: dict[str, Callable[[], Rows]] = {"encoder": _encoder, "decision": _decision}
