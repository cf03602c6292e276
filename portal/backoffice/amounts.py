"""Amounts of money in dense tables: rounded to the same places down a column, and never to zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from portal.kit.money import NANOS_PER_UNIT
from portal.pages.tags import amount_text

# Greatest amount of a table, in units of its currency, from which so many places tell enough.
_PLACES: Final = ((1_000, 2), (10, 4), (0, 6))


def places_of(amounts: Iterable[int]) -> int:
    """How many decimal places a table with these amounts (nano-units) needs."""
    top = max((abs(nanos) for nanos in amounts), default=0)
    return next(places for units, places in _PLACES if top >= units * NANOS_PER_UNIT)


def rounded_text(nanos: int, currency: str, *, places: int, sign: bool = False) -> str:
    """Rounded half up to the places; an amount that would become zero is not rounded."""
    step = 10 ** (9 - places)
    rounded = (abs(nanos) + step // 2) // step * step
    if nanos and not rounded:
        return amount_text(nanos, currency, sign=sign)
    return amount_text(-rounded if nanos < 0 else rounded, currency, sign=sign, decimals=places)
