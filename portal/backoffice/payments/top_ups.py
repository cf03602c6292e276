"""Top-ups: the list of them, and one with everything about it."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, QueryDict

from portal.backoffice.pages import operator_page
from portal.backoffice.payments.filters import PERIODS, choice, period_of, plain
from portal.backoffice.payments.shown import (
    shown_disputes,
    shown_events,
    shown_operations,
    shown_refunds,
    shown_top_ups,
    shown_transfers,
)
from portal.backoffice.payments.words import TOP_UP_SOURCES, TOP_UP_STATES, choices
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import is_fragment, show
from portal.pages.periods import Period
from quotas.models import TopUpSource, TopUpState
from quotas.payments.backoffice_queries import (
    DisputeRow,
    RefundRow,
    TopUpFilter,
    TopUpRow,
    fee_transfers,
    find_top_up,
    list_disputes,
    list_refunds,
    list_top_ups,
    list_transfers,
)
from quotas.payments.inbox_queries import events_about, operations_about

PAGE_ROWS: Final = 50
SHOWN_ROWS: Final = 50


@operator_page()
def top_ups(request: HttpRequest) -> HttpResponse:
    """The list. In the address: organization, state, source, q, period (from, to), before."""
    query = request.GET
    period = period_of(query, utc_now())
    filters = _filters(query, period)
    page = list_top_ups(
        filters=filters, before=optional_id("top_up", query.get("before", "")), limit=PAGE_ROWS
    )
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "top-ups",
        "rows": shown_top_ups(page.rows),
        "next": public_id(PREFIXES["top_up"], page.next) if page.next else "",
        "is_first": not query.get("before"),
        "filters": {name: query.get(name, "")[:255] for name in ("organization", "state", "source", "q")},
        "is_filtered": filters != TopUpFilter(),
        "states": choices(TOP_UP_STATES),
        "sources": choices(TOP_UP_SOURCES),
        "period": period,
        "presets": PERIODS,
    }
    if is_fragment(request) and request.headers.get("HX-Target") == "top-up-rows":
        return show(request, "backoffice/payments/_top_up_rows.html", context)
    return show(request, "backoffice/payments/top_ups.html", context)


@operator_page()
def top_up(request: HttpRequest, top_up: str) -> HttpResponse:
    """One top-up: amounts, what Stripe calls it, its transfers, refunds, disputes, requests and events."""
    found = found_top_up(top_up)
    refunds = list_refunds(top_up_id=found.id, limit=SHOWN_ROWS).rows
    disputes = list_disputes(top_up_id=found.id, limit=SHOWN_ROWS).rows
    stripe_ids = [
        *found.stripe_ids,
        *(one.refund_id for one in refunds if one.refund_id),
        *(one.dispute_id for one in disputes),
    ]
    (shown,) = shown_top_ups([found])
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "top-ups",
        "found": found,
        "shown": shown,
        "refunds": shown_refunds(refunds),
        "disputes": shown_disputes(disputes),
        "transfers": shown_transfers(list_transfers(ids=_transfer_ids(found, refunds, disputes, stripe_ids))),
        "operations": shown_operations(
            operations_about(subject_ids=[found.id, *(one.id for one in refunds)], limit=SHOWN_ROWS)
        ),
        "events": shown_events(events_about(object_ids=stripe_ids, limit=SHOWN_ROWS)),
    }
    return show(request, "backoffice/payments/top_up.html", context)


def found_top_up(top_up: str) -> TopUpRow:
    """The top-up of an address. Raises Http404."""
    found = find_top_up(top_up_id=parse_id("top_up", top_up))
    if found is None:
        raise Http404
    return found


def _filters(query: QueryDict, period: Period | None) -> TopUpFilter:
    text = plain(query.get("q", ""))
    top_up_id = optional_id("top_up", text)
    return TopUpFilter(
        tenant_id=optional_id("organization", query.get("organization", "")),
        state=choice(TopUpState, query.get("state", "")),
        source=choice(TopUpSource, query.get("source", "")),
        from_at=period.from_at if period else None,
        to_at=period.to_at if period else None,
        top_up_id=top_up_id,
        stripe_id="" if top_up_id else text,
    )


def _transfer_ids(
    found: TopUpRow, refunds: tuple[RefundRow, ...], disputes: tuple[DisputeRow, ...], stripe_ids: list[str]
) -> list[UUID]:
    wanted = [
        found.transfer_id,
        *(one.transfer_id for one in refunds),
        *(one.reversal_id for one in refunds),
        *(movement.transfer_id for one in disputes for movement in one.movements),
        *fee_transfers(source_ids=stripe_ids),
    ]
    return [one for one in wanted if one is not None]
