"""What units are worth, and numbers as people read them."""

from __future__ import annotations

from decimal import Decimal

__all__ = ["dollars", "duration", "in_dollars", "plural"]

# Vendor's price list, 2026-09: one image unit.
DOLLARS_PER_UNIT = Decimal("0.0035")


def dollars(units: float | Decimal) -> str:
    """Return the list price of *units* image units."""
    return f"${Decimal(units) * DOLLARS_PER_UNIT:,.2f}"


def in_dollars(units: float | Decimal) -> float:
    """Return the list price of *units* image units as a number, for programs."""
    return round(float(Decimal(units) * DOLLARS_PER_UNIT), 4)


def plural(count: int, noun: str) -> str:
    """Return `1 job`, `2 jobs`, `1,000 jobs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return *seconds* in the two largest units that say something: `4 s`, `2 min 10 s`, `3 h 5 min`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
