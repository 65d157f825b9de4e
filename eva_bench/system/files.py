"""Files: the one atomic write, the one checksum, and JSON that carries its own."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eva_bench.system.errors import UserError


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


PROBE_BYTES = 16 * 1024  # more than a record and its claim: a full disk still takes empty files


def check_writable(folder: Path, name: str) -> None:
    """Refuse early what could not be kept.

    Args:
        name: of the folder in the sentence, `results` or `runs`.

    Raises:
        UserError: the folder cannot be made or written.
    """
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        write_atomically(probe, b"0" * PROBE_BYTES)
        probe.unlink()
    except OSError as error:
        raise UserError(f"The {name} folder '{folder}' cannot be written: {error.strerror}.") from error


def sha256_of(content: Path | str | bytes) -> str:
    """SHA-256, in hexadecimal, of a file's content, of a text (UTF-8) or of bytes."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def write_sealed(path: Path, content: Any) -> None:
    """Write JSON with a checksum of itself, atomically. Raises OSError."""
    text = json.dumps(content)
    write_atomically(path, json.dumps({"sha256": sha256_of(text), "content": content}))


def read_sealed(path: Path) -> Any:
    """What `write_sealed` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or is not what was written.
    """
    try:
        stored = json.loads(path.read_bytes())
        if stored["sha256"] != sha256_of(json.dumps(stored["content"])):
            raise ValueError("checksum differs")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return stored["content"]
