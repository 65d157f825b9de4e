"""WikiText (Merity et al., arXiv:1609.07843) as articles: the hub's rows are lines, of which many are empty."""

from __future__ import annotations

import re
from typing import Any

from eva_bench.assets.catalogue import local_file, read_split
from eva_bench.system.files import sha256_of

ARTICLES = 16  # about 75,000 tokens
TITLE = re.compile(r" = [^=].* = \n?")


def load(info: dict[str, Any], name: str, split: str, root: str | None) -> list[dict[str, Any]]:
    """The first articles of a split, as rows {"text"}.

    Raises:
        UserError: missing, unreadable or empty file.
    """
    articles: list[str] = []
    for row in read_split(name, split, root):
        if TITLE.fullmatch(row["text"]):
            articles.append("")
        if articles:
            articles[-1] += row["text"]
    return [{"text": text.strip()} for text in articles[:ARTICLES]]


def identity(info: dict[str, Any], name: str, root: str | None) -> dict[str, Any]:
    """Revision and checksum.

    Raises:
        UserError: the file is not on this machine.
    """
    files = {split: local_file(name, split, root) for split in info["splits"]}
    return {"revision": info["revision"], "sha256": {split: sha256_of(path) for split, path in files.items()}}
