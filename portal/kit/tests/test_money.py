from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portal.kit.money import (
    MAX_AMOUNT_NANOS,
    MINOR_DIGITS,
    NANOS_PER_UNIT,
    InvalidAmount,
    UnknownCurrency,
    amount_to_decimal_text,
    format_nanos,
    from_minor_units,
    parse_amount,
    to_minor_units,
)

amounts = st.integers(-MAX_AMOUNT_NANOS, MAX_AMOUNT_NANOS)


@pytest.mark.parametrize(
    ("text", "amount_nanos"),
    [
        ("0", 0),
        ("-0", 0),
        ("12", 12 * NANOS_PER_UNIT),
        ("0.000123", 123_000),
        ("-5.50", -5_500_000_000),
        ("0.000000001", 1),
        ("007", 7 * NANOS_PER_UNIT),
        ("9000000000", MAX_AMOUNT_NANOS),
        ("-9000000000.000000000", -MAX_AMOUNT_NANOS),
    ],
)
def test_plain_decimals_are_read_exactly(text: str, amount_nanos: int) -> None:
    assert parse_amount(text) == amount_nanos


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-", ".", "+1", "1.", ".5", " 1", "1 ", "1\n", "1,5", "1_000", "1 000", "1e3", "1E3", "0x1",
        "inf", "-inf", "Infinity", "nan", "NaN", "--1", "1.2.3", "1.0000000001", "1.0000000000", "١", "½",
        "1.٣", "9000000000.000000001", "-9000000000.000000001", "99999999999999999999", "0" * 100,
        "9" * 10_000,
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        parse_amount(text)


@given(st.text(alphabet="0123456789.-+eE_ ,infNa\n", max_size=40))
def test_what_is_accepted_is_what_a_decimal_says(text: str) -> None:
    try:
        amount_nanos = parse_amount(text)
    except InvalidAmount:
        return
    assert Decimal(text) * NANOS_PER_UNIT == amount_nanos


@given(amounts)
@example(1)
@example(-1)
@example(MAX_AMOUNT_NANOS)
def test_decimal_text_comes_back(amount_nanos: int) -> None:
    text = amount_to_decimal_text(amount_nanos)
    assert parse_amount(text) == amount_nanos
    assert not ("." in text and text.endswith("0"))


@given(amounts)
def test_what_people_read_is_exact(amount_nanos: int) -> None:
    text = format_nanos(amount_nanos, "USD")
    assert parse_amount(text.replace("$", "")) == amount_nanos
    assert 2 <= len(text.partition(".")[2]) <= 9


@pytest.mark.parametrize(
    ("amount_nanos", "currency", "sign", "text"),
    [
        (123_000, "USD", False, "$0.000123"),
        (12_500_000_000, "CNY", False, "¥12.50"),
        (-12_500_000_000, "CNY", False, "-¥12.50"),
        (10**9, "EUR", False, "EUR 1.00"),
        (-(10**9), "EUR", True, "-EUR 1.00"),
        (10**9, "USD", True, "+$1.00"),
        (0, "USD", True, "$0.00"),
        (0, "USD", False, "$0.00"),
        (1, "USD", False, "$0.000000001"),
        (-1, "USD", False, "-$0.000000001"),
        (100_010_000, "USD", False, "$0.10001"),
        (1_234_567_890_000_000_000, "USD", False, "$1234567890.00"),
    ],
)
def test_amounts_look_like_this(amount_nanos: int, currency: str, sign: bool, text: str) -> None:
    assert format_nanos(amount_nanos, currency, sign=sign) == text


@pytest.mark.parametrize(
    ("text", "currency", "minor_units"),
    [("20", "USD", 2000), ("0.01", "CNY", 1), ("500", "JPY", 500), ("-1.5", "EUR", -150), ("0", "USD", 0)],
)
def test_amounts_are_counted_in_the_smallest_coins(text: str, currency: str, minor_units: int) -> None:
    assert to_minor_units(parse_amount(text), currency) == minor_units
    assert from_minor_units(minor_units, currency) == parse_amount(text)


@given(st.integers(-(10**15), 10**15), st.sampled_from(sorted(MINOR_DIGITS)))
def test_coins_are_exact_amounts(minor_units: int, currency: str) -> None:
    amount_nanos = from_minor_units(minor_units, currency)
    assert to_minor_units(amount_nanos, currency) == minor_units
    assert Decimal(amount_nanos) / NANOS_PER_UNIT == Decimal(minor_units) / 10 ** MINOR_DIGITS[currency]


@given(amounts, st.sampled_from(sorted(MINOR_DIGITS)))
def test_what_is_no_whole_number_of_coins_is_refused(amount_nanos: int, currency: str) -> None:
    """Never rounded: the amount is exactly those coins, or there are none."""
    try:
        minor_units = to_minor_units(amount_nanos, currency)
    except InvalidAmount:
        assert Decimal(amount_nanos) / NANOS_PER_UNIT * 10 ** MINOR_DIGITS[currency] % 1
    else:
        assert from_minor_units(minor_units, currency) == amount_nanos


@pytest.mark.parametrize("currency", ["", "usd", "XXX"])
def test_unknown_currencies_have_no_coins(currency: str) -> None:
    with pytest.raises(UnknownCurrency):
        to_minor_units(NANOS_PER_UNIT, currency)
    with pytest.raises(UnknownCurrency):
        from_minor_units(1, currency)
