"""Who pays afterwards, the invoices of all of them, and one with its lines and the calls behind them."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse

from portal.backoffice.pages import operator_page
from portal.backoffice.payments.filters import choice
from portal.backoffice.payments.words import choices
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import show
from portal.pages.monthly_invoices import opened_calls, shown_detail, shown_invoice
from portal.pages.words import MONTHLY_INVOICE_STATES
from quotas.models import MonthlyInvoiceState
from quotas.payments.postpaid.queries import InvoiceDetail, find_invoice, list_agreements, list_invoices

PAGE_ROWS: Final = 50


@operator_page()
def postpaid(request: HttpRequest) -> HttpResponse:
    """Agreements and invoices. In the address: state, organization, before (older invoices)."""
    query = request.GET
    state = choice(MonthlyInvoiceState, query.get("state", ""))
    tenant_id = optional_id("organization", query.get("organization", ""))
    page = list_invoices(
        tenant_id=tenant_id,
        state=state,
        before=optional_id("monthly_invoice", query.get("before", "")),
        limit=PAGE_ROWS,
    )
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "postpaid",
        "agreements": list_agreements(),
        "rows": [shown_invoice(row) for row in page.rows],
        "next": public_id(PREFIXES["monthly_invoice"], page.next) if page.next else "",
        "is_first": not query.get("before"),
        "filters": {name: query.get(name, "")[:255] for name in ("state", "organization")},
        "is_filtered": state is not None or tenant_id is not None,
        "states": choices(MONTHLY_INVOICE_STATES),
    }
    return show(request, "backoffice/postpaid/page.html", context)


@operator_page()
def invoice(request: HttpRequest, monthly_invoice: str) -> HttpResponse:
    """One invoice. In the address: model (whose calls are shown), after (further calls)."""
    found = found_invoice(monthly_invoice)
    context: dict[str, Any] = {"section": "payments", "tab": "postpaid", **shown_detail(found)}
    return show(request, "backoffice/postpaid/invoice.html", {**context, **opened_calls(request, found)})


def found_invoice(text: str) -> InvoiceDetail:
    """The invoice of a public id. Errors: Http404."""
    found = find_invoice(invoice_id=parse_id("monthly_invoice", text))
    if found is None:
        raise Http404
    return found
