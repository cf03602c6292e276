"""Stripe's books beside ours, a line a day and currency; and the rows of one line, side by side."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

from django.http import HttpRequest, HttpResponse

from portal.backoffice.pages import operator_page
from portal.backoffice.payments.filters import day_of
from portal.backoffice.payments.shown import transfer_url
from portal.backoffice.payments.words import TRANSFER_KINDS, word_of
from portal.kit.clock import utc_now
from portal.pages.answers import show
from quotas.payments.day_queries import day_lines
from quotas.payments.moneyback_queries import list_days
from quotas.payments.stripe_matching import OneSided

SHOWN_DAYS: Final = 31
CURRENCY_LENGTH: Final = 3
EARLIEST: Final = date(2000, 1, 31)


@operator_page()
def days(request: HttpRequest) -> HttpResponse:
    """The table. In the address: until (its last day); day and currency of the line that is opened."""
    query = request.GET
    today = utc_now().date()
    last = min(day_of(query.get("until", "")) or today, today)
    since = max(last - timedelta(days=SHOWN_DAYS - 1), EARLIEST)
    rows = list_days(since=since, until=last + timedelta(days=1))
    opened = _opened(day_of(query.get("day", "")), query.get("currency", ""))
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "days",
        "rows": rows,
        "since": since,
        "last": last,
        "earlier": (since - timedelta(days=1)).isoformat() if since > EARLIEST else "",
        "is_latest": last == today,
        "opened": opened,
    }
    return show(request, "backoffice/payments/days.html", context)


def _opened(day: date | None, currency: str) -> Any:
    """All lines of one day and currency; None when the address names none."""
    if day is None or not currency.isalpha() or len(currency) != CURRENCY_LENGTH:
        return None
    found = day_lines(day=day, currency=currency)
    return {
        "day": day,
        "currency": currency,
        "is_cut": found.is_cut,
        "lines": [(line, word_of(TRANSFER_KINDS, line.kind), _url(line)) for line in found.lines],
    }


def _url(line: OneSided) -> str:
    return transfer_url(line.transfer_id) if line.transfer_id else ""
