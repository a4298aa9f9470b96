"""
Scalars of the service's JSON, each read as forgivingly as real replies need.

Seen in real replies: numbers as strings and the other way round, and `"success"` for code 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

__all__ = ["code_of", "index", "moment", "number", "objects", "text"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ABSURD = 10**30


def code_of(value: object) -> int | None:
    """Return the code that *value* is or spells, None if it is none; gateways say `"0"` and `"success"` for 0."""
    if type(value) is int and -_ABSURD < value < _ABSURD:
        return value
    if isinstance(value, str) and value.strip().lower() in {"success", "succeed", "ok"}:
        return 0
    code = number(value)
    return int(code) if code is not None and code == code.to_integral_value() else None


def text(value: object) -> str:
    """Return *value* as text that UTF-8 can carry; the empty string for what is no text and no whole number."""
    if isinstance(value, str):
        # JSON can spell half a surrogate pair, which no URL, file or log can hold.
        return value if value.isascii() else value.encode(errors="replace").decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def number(value: object) -> Decimal | None:
    """Return *value*, a number or the text of one, if it is finite and not absurd."""
    if type(value) is int and -_ABSURD < value < _ABSURD:
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        found = Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        return None
    return found if found.is_finite() and abs(found.adjusted()) < 30 else None


def index(value: object) -> int | None:
    """Read a whole number from 0 up; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found >= 0 else None


def moment(value: object) -> datetime | None:
    """Read Unix milliseconds, as number or as text; None for anything else."""
    millis = value if type(value) is int else number(value)
    try:
        return None if millis is None else _EPOCH + timedelta(milliseconds=float(millis))
    except OverflowError:
        return None


def objects(value: object) -> Iterator[dict[str, Any]]:
    """Yield the objects of *value*, if that is a list."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())
