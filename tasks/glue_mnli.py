"""MNLI's evaluation rows: the matched and the mismatched validation split in turn, so that `eval.limit` sees both."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any

from eva_bench.assets import catalogue
from eva_bench.system.files import sha256_of


def load(entry: dict[str, Any], name: str, split: str, root: str | None) -> list[dict[str, Any]]:
    """Rows of `train`, or of `validation`: those of both parts, told apart by their column `part`."""
    if split != "validation":
        return catalogue.read_split(name, split, root)
    parts = [
        [row | {"part": part} for row in catalogue.read_split(name, f"validation_{part}", root)]
        for part in ("matched", "mismatched")
    ]
    return [row for row in chain.from_iterable(zip_longest(*parts)) if row is not None]


def identity(entry: dict[str, Any], name: str, root: str | None) -> dict[str, Any]:
    """Checksums of the files of all splits."""
    digests = {split: sha256_of(catalogue.local_file(name, split, root)) for split in entry["splits"]}
    pinned = all(facts.get("sha256") in (None, digests[split]) for split, facts in entry["splits"].items())
    return {"revision": entry["revision"], "sha256": digests, "as_pinned": pinned}
