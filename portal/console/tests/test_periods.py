"""Addresses that people and machines make up meet a page, never an error."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.http import QueryDict

from portal.console.tests.people import open_stage
from portal.pages.periods import read_period

NOW = datetime(2026, 5, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "last"),
    [("0001-01-01", "0001-01-02"), ("1969-12-30", "1969-12-31"), ("9999-12-30", "9999-12-31")],
)
def test_days_beyond_what_ids_and_clocks_can_say_become_the_default(first: str, last: str) -> None:
    period = read_period(QueryDict(f"period=custom&from={first}&to={last}"), now=NOW, default="30d")
    assert (period.name, period.is_corrected) == ("30d", True)


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("usage", {"model": "\0"}),
        ("usage", {"before": "req_7" + "z" * 25}),
        ("usage", {"before": "req_" + "0" * 26}),
        ("usage", {"period": "custom", "from": "1969-12-30", "to": "1969-12-31"}),
        ("statement", {"period": "custom", "from": "9999-12-30", "to": "9999-12-31"}),
        ("models", {"q": "\0"}),
        ("models", {"after": "\0"}),
        ("keys", {"q": "\0"}),
    ],
)
def test_made_up_addresses_show_the_page(database: None, page: str, query: dict[str, str]) -> None:
    assert open_stage().get(page, query=query).status_code in (200, 404)


def test_a_page_offers_its_own_presets() -> None:
    presets = {"today": "Today"}
    today = read_period(QueryDict("period=today"), now=NOW, default="7d", presets=presets)
    assert (today.name, today.first_day, today.last_day) == ("today", "2026-05-05", "2026-05-05")
    assert today.bucket == "hour"
    for query in ("period=today", "period=nonsense"):
        assert read_period(QueryDict(query), now=NOW, default="7d").is_corrected
