"""Data inside the page: compressed blocks of JSON that the page unpacks when it needs them. No torch here."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any


def pack(value: Any) -> str:
    """JSON, deflated, as base64: no character of it can end a script element. `unpack` in data.js reads it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def short(value: float | None, digits: int = 4) -> float | str | None:
    """A few significant digits; JSON has no NaN and no infinity, so those become words."""
    if value is None or isinstance(value, bool):
        return value
    return float(f"{value:.{digits}g}") if abs(value) < float("inf") else str(value)
