"""Files of rows: Parquet, JSON lines, JSON, CSV and TSV. No torch here."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def read_table(path: Path) -> Rows:
    """All rows of a file as plain dictionaries.

    Args:
        path: a file whose suffix is one of FORMATS. CSV and TSV have their columns' names in the first line; columns of
            numbers are read as numbers.

    Raises:
        OSError: the file cannot be opened.
        ValueError: another suffix, or content that is not what the suffix says.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"'{path.suffix}' is none of the formats {', '.join(FORMATS)}")
    rows = FORMATS[path.suffix](path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it holds something else than a list of rows with named columns")
    return rows


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet  # noqa: PLC0415 - it takes a third of a second and most commands read no rows

    return pyarrow.parquet.read_table(path).to_pylist()


def _json_lines(path: Path) -> Rows:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _json(path: Path) -> Rows:
    return json.loads(path.read_text(encoding="utf-8"))


def _delimited(delimiter: str, path: Path) -> Rows:
    import pyarrow.csv  # noqa: PLC0415 - as above

    parsing = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    table = pyarrow.csv.read_csv(path, parse_options=parsing)
    if foreign := [field.name for field in table.schema if pyarrow.types.is_binary(field.type)]:
        raise ValueError(f"column '{foreign[0]}' is not UTF-8")
    return table.to_pylist()


FORMATS: dict[str, Callable[[Path], Rows]] = {
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": partial(_delimited, ","),
    ".tsv": partial(_delimited, "\t"),
}
