"""Checks of rows that several tasks share. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eva_bench.system.errors import UserError


def refuse_missing(rows: Sequence[dict], columns: Iterable[str], dataset: str) -> None:
    """Refuse a data set whose owner renamed or left out a column.

    Args:
        rows: of a data set.
        columns: that must be there.
        dataset: the manifest's name.

    Raises:
        UserError: names the column and those that are there.
    """
    if rows and (absent := [column for column in columns if column not in rows[0]]):
        raise UserError(f"'{dataset}' has no column '{absent[0]}'; it has {', '.join(map(str, rows[0]))}.")


def refuse_other_than_text(rows: Sequence[dict], columns: Iterable[str], dataset: str) -> None:
    """Refuse columns of numbers and the like where text is needed; what is missing or empty is the caller's affair.

    Arguments as in `refuse_missing`. Raises UserError, which names the column and the first such row.
    """
    for column in columns:
        for i, row in enumerate(rows):
            value = row.get(column)
            if value is not None and not isinstance(value, str):
                kind = type(value).__name__
                raise UserError(f"Column '{column}' of '{dataset}' holds {kind}, not text: row {i} has {value!r:.60}.")
