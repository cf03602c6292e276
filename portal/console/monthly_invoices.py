"""Monthly invoices of an organization that pays afterwards: the list, and one with its lines."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse

from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import show
from portal.pages.monthly_invoices import opened_calls, shown_detail, shown_invoice
from quotas.payments.postpaid.queries import find_invoice, is_postpaid, list_invoices
from tenants.permissions import Permission

PAGE_ROWS: Final = 50


@organization_page(Permission.SEE_BILLING)
def monthly_invoices(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The list. In the address: before (older ones)."""
    before = request.GET.get("before", "")
    page = list_invoices(
        tenant_id=organization.tenant_id,
        before=parse_id("monthly_invoice", before) if before else None,
        limit=PAGE_ROWS,
    )
    context: dict[str, Any] = {
        "section": "billing",
        "rows": [shown_invoice(row) for row in page.rows],
        "next": page.next,
        "is_first": not before,
        "is_postpaid": is_postpaid(tenant_id=organization.tenant_id),
    }
    return show(request, "console/monthly_invoices/list.html", context, private=True)


@organization_page(Permission.SEE_BILLING)
def monthly_invoice(request: HttpRequest, organization: Organization, monthly_invoice: str) -> HttpResponse:
    """One invoice. In the address: model (whose calls are shown), after (further calls)."""
    found = find_invoice(
        invoice_id=parse_id("monthly_invoice", monthly_invoice), tenant_id=organization.tenant_id
    )
    if found is None:
        raise Http404
    context: dict[str, Any] = {"section": "billing", **shown_detail(found)}
    return show(
        request,
        "console/monthly_invoices/invoice.html",
        {**context, **opened_calls(request, found)},
        private=True,
    )
