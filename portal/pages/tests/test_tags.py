"""How amounts, counts and moments are shown: never rounded, and with the exact value beside the words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.template import engines
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from portal.kit.money import MAX_AMOUNT_NANOS
from portal.pages import tags


def render(source: str, **context: object) -> str:
    request = RequestFactory().get("/page?b=2&a=1")
    return str(engines["django"].from_string(source).render(context, request))


@pytest.mark.parametrize(
    ("nanos", "currency", "options", "shown"),
    [
        (123_000, "USD", {}, "$0.000123"),
        (1, "CNY", {}, "¥0.000000001"),
        (12_500_000_000, "CNY", {}, "¥12.50"),
        (-8_900, "USD", {"sign": True}, "−$0.0000089"),
        (8_900, "USD", {"sign": True}, "+$0.0000089"),
        (8_900, "USD", {"decimals": 9}, "$0.000008900"),
        (0, "USD", {"decimals": 4}, "$0.0000"),
    ],
)
def test_amounts_are_never_rounded(nanos: int, currency: str, options: dict[str, object], shown: str) -> None:
    html = str(tags.money(nanos, currency, **options))  # type: ignore[arg-type]
    assert f">{shown}</data>" in html
    assert f'value="{nanos}"' in html


@given(st.integers(-MAX_AMOUNT_NANOS, MAX_AMOUNT_NANOS), st.integers(0, 9))
def test_a_columns_precision_changes_no_amount(nanos: int, decimals: int) -> None:
    text = tags.amount_text(nanos, "USD", decimals=decimals)
    units, _, places = text.lstrip("−").lstrip("$").partition(".")
    assert len(places) >= max(2, decimals)
    assert int(units) * 10**9 + int(places.ljust(9, "0")) == abs(nanos)
    assert text.startswith("−") == (nanos < 0)


def test_what_is_not_known_is_a_dash() -> None:
    assert (
        render("{% money n 'USD' %}{% tokens n %}{% moment n %}{% duration n %}{% ago n %}", n=None)
        == "–" * 5
    )


def test_the_exact_amount_is_said_in_the_title() -> None:
    assert 'title="1,234,567 nano-units of USD"' in render("{% money n 'USD' %}", n=1_234_567)


def test_moments_carry_utc_and_let_scripts_localize_them() -> None:
    moment = datetime(2026, 11, 25, 8, 30, 15, 250_000, tzinfo=UTC)
    html = render("{% moment at %}", at=moment)
    assert 'datetime="2026-11-25T08:30:15.250Z"' in html
    assert 'title="2026-11-25 08:30:15 UTC"' in html
    assert ">2026-11-25 08:30</time>" in html


def test_counts_have_separators_and_plain_digits() -> None:
    assert render("{% tokens n %}", n=1_234_567) == '<data class="count" value="1234567">1,234,567</data>'


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 seconds ago"), (61, "1 minute ago"), (7200, "2 hours ago")]
)
def test_how_long_ago(seconds: int, words: str) -> None:
    assert render("{% ago n %}", n=seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(1, "1 second"), (61, "1 minute"), (7200, "2 hours"), (200_000, "2 days")]
)
def test_how_long(seconds: int, words: str) -> None:
    assert render("{% lasting n %}", n=seconds) == words


def test_addresses_keep_their_other_parameters() -> None:
    assert render("{% url_with page=3 b='' %}") == "/page?a=1&amp;page=3"
