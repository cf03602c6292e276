"""Rows of comma-separated values that are safe to open in a spreadsheet."""

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from io import StringIO

from portal.kit.money import amount_to_decimal_text

# What a spreadsheet takes for the beginning of a formula, in wide signs too, and what it skips before one.
FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n")

Cell = str | int


def safe_text(text: str) -> str:
    """Text that people chose, as a cell that no spreadsheet runs: with an apostrophe before a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def amount(amount_nanos: int | None) -> str:
    """An amount as exact decimals of the currency's unit; nothing for None. A minus stays: it is ours."""
    return "" if amount_nanos is None else amount_to_decimal_text(amount_nanos)


def moment(at: datetime | None) -> str:
    """A moment in UTC (ISO 8601 with a Z); nothing for None."""
    return "" if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def csv_text(rows: Iterable[Sequence[Cell | None]]) -> str:
    """The rows as text, each ended by CR LF; None is an empty cell."""
    buffer = StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()
