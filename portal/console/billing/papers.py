"""Receipts and invoices of what was paid."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, HttpResponse

from portal.console.billing.balance import shown
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import show
from quotas.payments import top_ups
from quotas.payments.postpaid.queries import is_postpaid
from tenants.permissions import Permission

PAGE_ROWS: Final = 50


@organization_page(Permission.SEE_BILLING)
def invoices(request: HttpRequest, organization: Organization) -> HttpResponse:
    """Every top-up that was paid, with its papers. In the address: before (older ones)."""
    before = request.GET.get("before", "")
    page = top_ups.list_top_ups(
        tenant_id=organization.tenant_id,
        is_paid=True,
        before=parse_id("top_up", before) if before else None,
        limit=PAGE_ROWS,
    )
    context: dict[str, Any] = {
        "section": "billing",
        "top_ups": [shown(row) for row in page.rows],
        "next": page.next,
        "is_first": not before,
        "is_postpaid": is_postpaid(tenant_id=organization.tenant_id),
    }
    return show(request, "console/billing/invoices.html", context, private=True)
