"""The balance on drums never says more or less than there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.templatetags.odometer import FRACTION_DRUMS, Drums, drums_of, odometer


@pytest.mark.parametrize(
    ("amount_nanos", "drums"),
    [
        (0, Drums(False, "000", "0", "0000")),
        (1_304_310_042_000, Drums(False, "", "1304", "3100")),
        (999_999_999, Drums(False, "000", "0", "9999")),
        (123_000, Drums(False, "000", "0", "0001")),
        (99_999, Drums(False, "000", "0", "000099999")),
        (1, Drums(False, "000", "0", "000000001")),
        (-4_200_000_000, Drums(True, "000", "4", "2000")),
        (98_765_432_100_000_000, Drums(False, "", "98765432", "1000")),
    ],
)
def test_drums(amount_nanos: int, drums: Drums) -> None:
    assert drums_of(amount_nanos) == drums


@given(st.integers(min_value=-(9 * 10**18), max_value=9 * 10**18))
def test_what_is_shown_is_cut_and_never_more(amount_nanos: int) -> None:
    drums = drums_of(amount_nanos)
    shown_nanos = int(drums.whole) * 10**9 + int(drums.fraction.ljust(9, "0"))
    assert 0 <= abs(amount_nanos) - shown_nanos < 10 ** (9 - FRACTION_DRUMS)
    assert bool(shown_nanos) == bool(amount_nanos)


def test_people_who_listen_hear_the_exact_amount() -> None:
    html = str(odometer(1_304_310_042_000, "CNY", "balance"))
    assert '<span class="visually-hidden">¥1304.310042</span>' in html
    assert 'value="1304310042000"' in html
    assert html.count("odometer-drum ") + html.count('odometer-drum"') == 8
    assert "style" not in html
    assert str(odometer(None, "CNY", "balance")) == "–"
