"""Files: the one atomic write and the one checksum."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, content: str | bytes | Callable[[Path], None]) -> None:
    """Write a file whole or not at all: a temporary name beside it, flushed to disk, renamed.

    Args:
        path: the file; its folder is made.
        content: text (UTF-8), bytes, or a function that writes the file whose path it is given.

    Raises:
        OSError: the file cannot be written; what was there before is still there, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # half a file after a full disk


def sha256_of(content: Path | str | bytes) -> str:
    """SHA-256, in hexadecimal, of a file's content, of a text (UTF-8) or of bytes."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
