"""Money that goes back: refunds and disputes."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse

from portal.backoffice.pages import operator_page
from portal.backoffice.payments.filters import PERIODS, choice, period_of
from portal.backoffice.payments.shown import (
    shown_disputes,
    shown_events,
    shown_refunds,
    shown_transfers,
    top_up_url,
)
from portal.backoffice.payments.words import REFUND_STATES, choices
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import show
from quotas.models import RefundState
from quotas.payments.backoffice_queries import (
    fee_transfers,
    find_dispute,
    list_disputes,
    list_refunds,
    list_transfers,
)
from quotas.payments.inbox_queries import events_about

PAGE_ROWS: Final = 50
OPEN, CLOSED = "open", "closed"


@operator_page()
def refunds(request: HttpRequest) -> HttpResponse:
    """The list. In the address: organization, state, q (a refund's id), period (from, to), before."""
    query = request.GET
    period = period_of(query, utc_now())
    wanted: dict[str, Any] = {
        "tenant_id": optional_id("organization", query.get("organization", "")),
        "state": choice(RefundState, query.get("state", "")),
        "refund_id": optional_id("refund", query.get("q", "")),
        "from_at": period.from_at if period else None,
        "to_at": period.to_at if period else None,
    }
    page = list_refunds(**wanted, before=optional_id("refund", query.get("before", "")), limit=PAGE_ROWS)
    context = {
        "section": "payments",
        "tab": "refunds",
        "rows": shown_refunds(page.rows),
        "next": public_id(PREFIXES["refund"], page.next) if page.next else "",
        "is_first": not query.get("before"),
        "filters": {name: query.get(name, "")[:255] for name in ("organization", "state", "q")},
        "is_filtered": any(value is not None for value in wanted.values()),
        "states": choices(REFUND_STATES),
        "period": period,
        "presets": PERIODS,
    }
    return show(request, "backoffice/payments/refunds.html", context)


@operator_page()
def disputes(request: HttpRequest) -> HttpResponse:
    """The list. In the address: organization, state (open or closed), before."""
    query = request.GET
    tenant_id = optional_id("organization", query.get("organization", ""))
    is_open = {OPEN: True, CLOSED: False}.get(query.get("state", ""))
    page = list_disputes(
        tenant_id=tenant_id,
        is_open=is_open,
        before=optional_id("dispute", query.get("before", "")),
        limit=PAGE_ROWS,
    )
    context = {
        "section": "payments",
        "tab": "disputes",
        "rows": shown_disputes(page.rows),
        "next": public_id(PREFIXES["dispute"], page.next) if page.next else "",
        "is_first": not query.get("before"),
        "filters": {name: query.get(name, "")[:255] for name in ("organization", "state")},
        "is_filtered": tenant_id is not None or is_open is not None,
        "now": utc_now(),
    }
    return show(request, "backoffice/payments/disputes.html", context)


@operator_page()
def dispute(request: HttpRequest, dispute: str) -> HttpResponse:
    """One dispute: what the bank wants and until when, and what it took and gave back."""
    found = find_dispute(dispute_id=parse_id("dispute", dispute))
    if found is None:
        raise Http404
    (shown,) = shown_disputes([found])
    ids = [
        *(movement.transfer_id for movement in found.movements),
        *fee_transfers(source_ids=[found.dispute_id]),
    ]
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "disputes",
        "found": found,
        "shown": shown,
        "top_up_url": top_up_url(found.top_up_id),
        "transfers": shown_transfers(list_transfers(ids=ids)),
        "events": shown_events(events_about(object_ids=[found.dispute_id])),
        "now": utc_now(),
    }
    return show(request, "backoffice/payments/dispute.html", context)
