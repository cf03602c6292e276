"""Organizations: looking for one, and everything about it on one page. Nothing here changes anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from portal.backoffice.audit.rows import shown_events
from portal.backoffice.orders import shown_orders
from portal.backoffice.pages import operator_page
from portal.backoffice.words import TENANT_STATES
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import is_fragment, person_id, show
from portal.pages.call_rows import call_rows
from portal.pages.charts import Chart, Series, Slot, stacked_bars
from portal.pages.receipts import receipt_context
from portal.pages.tags import amount_text
from quotas.credit.queries import list_orders
from quotas.customers import search_customers, tier_names, tier_of
from quotas.ledger.queries import StatementNotFound, wallet_balance
from quotas.limits.queries import effective_limits
from quotas.metering.queries import (
    RequestFilter,
    RequestNotFound,
    UsageTotals,
    last_used,
    list_requests,
    request_receipt,
    usage_summary,
    usage_totals,
)
from quotas.welcome.queries import welcome_of
from tenants.audit_queries import AuditFilter, audit_page
from tenants.models import TenantState
from tenants.queries import list_api_keys, list_invitations, list_members
from tenants.search import TenantRow, find_tenant, list_notes

PAGE_ROWS: Final = 50
RECENT_ROWS: Final = 10
SHOWN_KEYS: Final = 25
SHOWN_MEMBERS: Final = 25
CHART_DAYS: Final = 30
REQUESTS_DAYS: Final = 90


def found_tenant(organization: str) -> TenantRow:
    """The organization of an address. Raises Http404."""
    tenant = find_tenant(tenant_id=parse_id("organization", organization))
    if tenant is None:
        raise Http404
    return tenant


@operator_page()
def tenants(request: HttpRequest) -> HttpResponse:
    """The list. In the address: q, state, tier, before (the page further back)."""
    now = utc_now()
    query = request.GET
    text = query.get("q", "").strip()[:200]
    state = TenantState(query["state"]) if query.get("state") in TenantState.values else None
    tier_id = optional_id("tier", query.get("tier", ""))
    page = search_customers(
        now=now,
        text=text,
        state=state,
        tier_id=tier_id,
        before=optional_id("organization", query.get("before", "")),
        limit=PAGE_ROWS,
    )
    context = {
        "section": "tenants",
        "rows": [(row, *TENANT_STATES[row.tenant.state]) for row in page.rows],
        "next": public_id(PREFIXES["organization"], page.next) if page.next else "",
        "filters": {"q": text, "state": state or "", "tier": query.get("tier", "") if tier_id else ""},
        "is_filtered": bool(text or state or tier_id),
        "is_first": not query.get("before"),
        "states": [(value, word) for value, (_tone, word) in TENANT_STATES.items()],
        "tiers": tier_names(),
    }
    if is_fragment(request) and request.headers.get("HX-Target") == "tenant-rows":
        return show(request, "backoffice/tenants/_rows.html", context)
    return show(request, "backoffice/tenants/list.html", context)


@operator_page()
def tenant(request: HttpRequest, organization: str) -> HttpResponse:
    """Everything about one organization."""
    found, now = found_tenant(organization), utc_now()
    tone, word = TENANT_STATES[found.state]
    recent = RequestFilter(now - timedelta(days=REQUESTS_DAYS), now + timedelta(minutes=5))
    context: dict[str, Any] = {
        "section": "tenants",
        "tenant": found,
        "tone": tone,
        "state": word,
        "now": now,
        **_money(found, now),
        "limits": effective_limits(
            tenant_id=found.id, now=now, default_rpm=settings.TUNING["SLUICE_RATE_LIMIT_RPM"]
        ),
        "tier": tier_of(tenant_id=found.id, now=now),
        **_people(found, now),
        "notes": list_notes(tenant_id=found.id),
        "orders": shown_orders(
            list_orders(tenant_id=found.id, limit=RECENT_ROWS).rows, operator_id=person_id(request), now=now
        ),
        "calls": call_rows(list_requests(tenant_id=found.id, filters=recent, limit=RECENT_ROWS).rows),
        "events": shown_events(audit_page(filters=AuditFilter(tenant_id=found.id), limit=RECENT_ROWS).rows),
    }
    return show(request, "backoffice/tenants/detail.html", context)


def _money(found: TenantRow, now: datetime) -> dict[str, Any]:
    try:
        balance = wallet_balance(tenant_id=found.id)
    except StatementNotFound:
        balance = None
    return {
        "balance": balance,
        "usage": usage_summary(tenant_id=found.id, now=now),
        "chart": _chart(found, now),
        "welcome": welcome_of(tenant_id=found.id),
    }


def _people(found: TenantRow, now: datetime) -> dict[str, Any]:
    keys = list_api_keys(tenant_id=found.id, now=now)
    used = last_used(tenant_id=found.id)
    members = list_members(tenant_id=found.id)
    live = sorted(keys, key=lambda key: not key.is_live)
    return {
        "keys": [(key, used.get(key.id)) for key in live[:SHOWN_KEYS]],
        "more_keys": max(0, len(keys) - SHOWN_KEYS),
        "members": members[:SHOWN_MEMBERS],
        "more_members": max(0, len(members) - SHOWN_MEMBERS),
        "invitations": len(list_invitations(tenant_id=found.id, now=now)),
    }


def _chart(found: TenantRow, now: datetime) -> Chart:
    """What was charged a day, by model."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    totals: UsageTotals = usage_totals(
        tenant_id=found.id,
        from_at=midnight - timedelta(days=CHART_DAYS - 1),
        to_at=midnight + timedelta(days=1),
        bucket="day",
        group_by="model",
    )
    return stacked_bars(
        chart_id="tenant-usage",
        title=_("Charged a day, by model"),
        slots=[Slot(f"{start:%m-%d}", f"{start:%Y-%m-%d}") for start in totals.starts],
        series=[
            Series(
                one.group.model.slug if one.group.model else _("Other"),
                tuple(sums.charged_nanos for sums in one.buckets),
            )
            for one in totals.series
        ],
        wording=lambda nanos: amount_text(nanos, found.currency),
        slot_heading=_("Day (UTC)"),
    )


@operator_page()
def requests(request: HttpRequest, organization: str) -> HttpResponse:
    """The organization's calls of REQUESTS_DAYS. In the address: before (the page further back)."""
    found, now = found_tenant(organization), utc_now()
    page = list_requests(
        tenant_id=found.id,
        filters=RequestFilter(now - timedelta(days=REQUESTS_DAYS), now + timedelta(minutes=5)),
        before=optional_id("request", request.GET.get("before", "")),
        limit=PAGE_ROWS,
    )
    context = {
        "section": "tenants",
        "tenant": found,
        "calls": call_rows(page.rows),
        "days": REQUESTS_DAYS,
        "is_first": not request.GET.get("before"),
        "next": public_id(PREFIXES["request"], page.next) if page.next else "",
    }
    return show(request, "backoffice/tenants/requests.html", context)


@operator_page()
def receipt(request: HttpRequest, organization: str, request_id: str) -> HttpResponse:
    """What explains one charge, as the organization sees it."""
    found = found_tenant(organization)
    try:
        explained = request_receipt(tenant_id=found.id, request_id=parse_id("request", request_id))
    except RequestNotFound:
        raise Http404 from None
    context = {"section": "tenants", "tenant": found, **receipt_context(explained)}
    return show(request, "backoffice/tenants/receipt.html", context)
