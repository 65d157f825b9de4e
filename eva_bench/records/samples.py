"""Samples on disk: JSON lines in chunks; beside them what answered and a checksum of every chunk. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_bench.system.files import read_sealed, sha256_of, write_sealed
from eva_bench.system.progress import warn


def begin(file: Path, answered_by: str, fresh: bool = False) -> None:
    """Keep the samples in a file only if the same weights and code answered; otherwise all rows are answered again.

    Args:
        answered_by: checksum of what answers.
        fresh: answer again in any case.
    """
    if fresh or _read(file)["answered_by"] != answered_by:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        write_sealed(_checksums(file), {"answered_by": answered_by, "chunks": []})


class Samples:
    """The samples of one evaluation: what is there already, in whole chunks, and what is added.

    An interrupted evaluation continues behind its last chunk, so that the rest falls into the same batches as ever.
    What stands in the file behind them, or differs from its checksum, is answered again.
    """

    def __init__(self, file: Path, n_rows: int, chunk: int):
        self.file, self.rows = file, list[dict[str, Any]]()
        known = _read(file)
        self._by, self._chunks, self._size = known["answered_by"], list[tuple[int, int, str]](), 0
        content = file.read_bytes() if file.exists() else b""
        for rows, size, digest in known["chunks"]:
            part = content[self._size : self._size + size]
            whole = rows == chunk or len(self.rows) + rows == n_rows
            if not whole or len(self.rows) + rows > n_rows:
                break
            if sha256_of(part) != digest:
                warn(f"{file.name} is damaged behind row {len(self.rows)}: the rest is answered again")
                break
            self._keep([json.loads(line) for line in part.split(b"\n")[:-1]], size, digest)
        if len(content) > self._size:
            with file.open("r+b") as stream:
                stream.truncate(self._size)

    def append(self, new: Sequence[dict[str, Any]]) -> None:
        """Write one chunk, then its checksum: what a crash leaves between the two does not count."""
        part = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in new).encode()
        self.file.touch()
        with self.file.open("r+b") as stream:  # not at the end, wherever that may be by now
            stream.seek(self._size)
            stream.write(part)
            stream.truncate()
        self._keep(new, len(part), sha256_of(part))
        write_sealed(_checksums(self.file), {"answered_by": self._by, "chunks": self._chunks})

    def _keep(self, rows: Sequence[dict[str, Any]], size: int, digest: str) -> None:
        self.rows += rows
        self._size += size
        self._chunks.append((len(rows), size, digest))


def _checksums(file: Path) -> Path:
    return file.with_suffix(".checksums.json")


def _read(file: Path) -> dict[str, Any]:
    try:
        known = read_sealed(_checksums(file))
        if isinstance(known, dict) and known.keys() == {"answered_by", "chunks"}:
            return known
        warn(f"{_checksums(file).name} is of another kind: all rows are answered again")
    except FileNotFoundError:
        pass
    except ValueError as error:
        warn(f"{_checksums(file).name} is damaged: all rows are answered again ({error})")
    return {"answered_by": None, "chunks": []}
