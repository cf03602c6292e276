"""Payments at a glance: what came in and went back, what is open, and whether Stripe is heard."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.http import HttpRequest, HttpResponse

from portal.backoffice.pages import operator_page
from portal.kit.clock import utc_now
from portal.pages.answers import show
from quotas.payments.client import takes_cards
from quotas.payments.moneyback_queries import list_days
from quotas.payments.overview_queries import DAYS, payments_overview
from quotas.payments.stripe_matching import DayMatch

MATCHED_DAYS: Final = 30


@operator_page()
def payments(request: HttpRequest) -> HttpResponse:
    """The overview. Each figure leads to the list that it counts."""
    now = utc_now()
    overview = payments_overview(now=now)
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "overview",
        "overview": overview,
        "days": DAYS,
        "is_configured": takes_cards(),
        "is_empty": not overview.currencies,
        "polled_s": _age_s(overview.polled_at(), now),
        "pending_s": _age_s(overview.pending_since, now),
        "waiting_s": _age_s(overview.waiting_since, now),
        "is_poller_silent": overview.is_poller_silent(now),
        "are_webhooks_silent": overview.are_webhooks_silent(now),
        "is_inbox_stuck": overview.is_inbox_stuck(now),
        "failing_cursors": [cursor for cursor in overview.cursors if cursor.error],
        "unmatched": len(_unmatched(now)),
        "matched_days": MATCHED_DAYS,
    }
    return show(request, "backoffice/payments/overview.html", context)


def _unmatched(now: datetime) -> list[DayMatch]:
    """Full days and currencies of which Stripe's books and ours differ. Today's are still being written."""
    today = now.date()
    days = list_days(since=today - timedelta(days=MATCHED_DAYS), until=today)
    return [day for day in days if not day.is_matched]


def _age_s(moment: datetime | None, now: datetime) -> float | None:
    return (now - moment).total_seconds() if moment else None
