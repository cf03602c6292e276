"""Amounts of money: integers of nano-units (one dollar = 10**9), their text and back, always exact."""

import re
from typing import Final

NANOS_PER_UNIT: Final = 10**9
MAX_AMOUNT_NANOS: Final = 9 * 10**18
"""What `parse_amount` accepts at most, either side of zero; just below what a BIGINT holds."""

CURRENCY_SYMBOLS: Final[dict[str, str]] = {"USD": "$", "CNY": "¥"}

# How many decimals of a unit a currency's smallest coin has, as card networks and Stripe count them.
MINOR_DIGITS: Final[dict[str, int]] = {
    **dict.fromkeys(("USD", "CNY", "EUR", "GBP", "HKD", "SGD", "AUD", "CAD", "CHF", "NZD", "TWD"), 2),
    **dict.fromkeys(("JPY", "KRW", "VND", "CLP", "PYG", "RWF", "XAF", "XOF", "XPF"), 0),
}

_DECIMAL_TEXT: Final = re.compile(r"(-?)([0-9]{1,19})(?:\.([0-9]{1,9}))?")
_MAX_TEXT_LENGTH: Final = 32


class InvalidAmount(ValueError):
    """The text is not a plain decimal number that nano-units can hold exactly."""


class UnknownCurrency(ValueError):
    """Nothing is known about the coins of this currency."""


def parse_amount(text: str) -> int:
    """Nano-units of a plain decimal text such as `12`, `0.000123` or `-5.5`; exact, nothing is rounded.

    Raises InvalidAmount for more than nine decimals, exponents, signs other than a leading minus, spaces,
    separators, infinities, not-a-numbers, and more than MAX_AMOUNT_NANOS either side of zero.
    """
    match = _DECIMAL_TEXT.fullmatch(text) if len(text) <= _MAX_TEXT_LENGTH else None
    if match is None:
        raise InvalidAmount("an amount is a plain decimal number with at most nine decimals")
    minus, units, decimals = match.groups()
    amount_nanos = int(units) * NANOS_PER_UNIT + int((decimals or "").ljust(9, "0"))
    if amount_nanos > MAX_AMOUNT_NANOS:
        raise InvalidAmount("the amount is too large")
    return -amount_nanos if minus else amount_nanos


def amount_to_decimal_text(amount_nanos: int) -> str:
    """The shortest exact decimal text: `12`, `0.000123`, `-5.5`. `parse_amount` reads it back."""
    minus, units, decimals = _parts(amount_nanos)
    decimals = decimals.rstrip("0")
    return f"{minus}{units}.{decimals}" if decimals else f"{minus}{units}"


def format_nanos(amount_nanos: int, currency: str, *, sign: bool = False) -> str:
    """The amount as people read it: `$0.000123`, `-¥12.50`, `EUR 1.00`.

    Between two and nine decimals, never rounded. With `sign`, amounts above zero carry a plus.
    """
    minus, units, decimals = _parts(amount_nanos)
    decimals = decimals.rstrip("0").ljust(2, "0")
    lead = "+" if sign and amount_nanos > 0 else minus
    symbol = CURRENCY_SYMBOLS.get(currency, f"{currency} ")
    return f"{lead}{symbol}{units}.{decimals}"


def to_minor_units(amount_nanos: int, currency: str) -> int:
    """The amount in the smallest coins of its currency (cents; whole yen), exact.

    Raises InvalidAmount when it is not a whole number of them, UnknownCurrency for one that is not in
    MINOR_DIGITS.
    """
    units, rest_nanos = divmod(amount_nanos, _nanos_per_minor(currency))
    if rest_nanos:
        raise InvalidAmount(f"not a whole number of the smallest coin of {currency}")
    return units


def from_minor_units(amount: int, currency: str) -> int:
    """Nano-units of an amount in the smallest coins of its currency. Raises UnknownCurrency."""
    return amount * _nanos_per_minor(currency)


def _nanos_per_minor(currency: str) -> int:
    try:
        return int(NANOS_PER_UNIT // 10 ** MINOR_DIGITS[currency])
    except KeyError:
        raise UnknownCurrency(f"the smallest coin of {currency!r} is not known") from None


def _parts(amount_nanos: int) -> tuple[str, int, str]:
    """Minus sign or nothing, whole units, and exactly nine decimals."""
    units, rest_nanos = divmod(abs(amount_nanos), NANOS_PER_UNIT)
    return "-" if amount_nanos < 0 else "", units, f"{rest_nanos:09d}"
