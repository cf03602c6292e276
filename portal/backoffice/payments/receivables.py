"""Who owes us money."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from portal.backoffice.pages import operator_page
from portal.kit.clock import utc_now
from portal.pages.answers import show
from quotas.payments.debtor_queries import list_debtors


@operator_page()
def receivables(request: HttpRequest) -> HttpResponse:
    """Who owes how much, since when, and whether they are suspended because of it."""
    now = utc_now()
    rows = list_debtors(now=now)
    context = {
        "section": "payments",
        "tab": "receivables",
        "rows": [(row, (now - row.since).total_seconds() if row.since else None) for row in rows],
    }
    return show(request, "backoffice/payments/receivables.html", context)
