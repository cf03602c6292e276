"""Invoices on request: what can be invoiced, asking for it, and what came of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.clock import utc_now
from portal.pages.access import Organization, optional_id, organization_page, parse_id
from portal.pages.answers import done, never_keep, show, show_dialog
from portal.pages.tags import amount_text
from portal.pages.words import INVOICE_STATES
from quotas.payments import billing_profiles, invoicing
from quotas.payments.invoice_queries import (
    InvoiceRow,
    find_document,
    find_invoice,
    invoiceable,
    list_invoices,
)
from tenants.operations import audit
from tenants.permissions import Permission

PAGE_ROWS: Final = 50
NOW, LAST_MONTH = "now", "month"


class RequestForm(forms.Form):
    """until: NOW or LAST_MONTH."""

    until = forms.ChoiceField(label=gettext_lazy("Consumed until"), widget=forms.RadioSelect)

    def __init__(self, *args: Any, choices: list[tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["until"].choices = choices  # type: ignore[attr-defined]


@organization_page(Permission.SEE_BILLING)
def requested_invoices(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The profile, what can be invoiced, and the list. In the address: before (further back)."""
    tenant_id = organization.tenant_id
    page = list_invoices(
        tenant_id=tenant_id, before=optional_id("invoice", request.GET.get("before", "")), limit=PAGE_ROWS
    )
    context = {
        "section": "billing",
        "profile": billing_profiles.profile_of(tenant_id=tenant_id),
        "room": invoiceable(tenant_id=tenant_id),
        "invoices": [(row, *INVOICE_STATES[row.state]) for row in page.rows],
        "next": page.next,
        "is_first": not request.GET.get("before"),
    }
    return show(request, "console/invoices/page.html", context)


@organization_page(Permission.PAY, methods=("GET", "HEAD", "POST"))
def request_invoice(request: HttpRequest, organization: Organization) -> HttpResponse:
    """GET the question; POST until. Errors: 422 with the form."""
    tenant_id, now = organization.tenant_id, utc_now()
    month = _month_start(now)
    form = RequestForm(
        request.POST if request.method == "POST" else None,
        choices=_choices(tenant_id, organization.currency, month),
        initial={"until": NOW},
        auto_id="request_%s",
    )
    if request.method == "POST" and form.is_valid():
        try:
            row = invoicing.request_invoice(
                tenant_id=tenant_id,
                actor=audit.member(organization.user_id, organization.role),
                now=now,
                to_at=month if form.cleaned_data["until"] == LAST_MONTH else None,
            )
        except invoicing.ProfileNotVerified:
            form.add_error(None, _("An operator has to verify the legal name and the tax ID first."))
        except invoicing.NothingToInvoice:
            form.add_error("until", _("Nothing is left to be invoiced until then."))
        else:
            text = _("Requested: an invoice over %(amount)s.") % {
                "amount": amount_text(row.amount_nanos, row.currency)
            }
            return done(request, _address(organization), text)
    context = {
        "form": form,
        "post_url": request.path,
        "profile": billing_profiles.profile_of(tenant_id=tenant_id),
    }
    return _dialog(request, "_request.html", context, _("Request an invoice"), 422 if form.errors else 200)


@organization_page(Permission.PAY, methods=("GET", "HEAD", "POST"))
def cancel_invoice(request: HttpRequest, organization: Organization, invoice: str) -> HttpResponse:
    """GET the question; POST takes the request back."""
    row = _found(organization, invoice)
    status = 200
    if request.method == "POST":
        try:
            invoicing.cancel_invoice(
                tenant_id=organization.tenant_id,
                invoice_id=row.id,
                actor=audit.member(organization.user_id, organization.role),
                now=utc_now(),
            )
        except invoicing.InvoiceDecided:
            row, status = _found(organization, invoice), 422
        else:
            return done(request, _address(organization), _("The request is cancelled."))
    context = {"row": row, "state": INVOICE_STATES[row.state][1], "post_url": request.path}
    return _dialog(request, "_cancel.html", context, _("Cancel the request?"), status)


@organization_page(Permission.SEE_BILLING)
def invoice_document(request: HttpRequest, organization: Organization, document: str) -> HttpResponse:
    """The PDF of an invoice or a credit note."""
    found = find_document(document_id=parse_id("invoice_document", document))
    if found is None:
        raise Http404
    response = HttpResponse(found.content, content_type="application/pdf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.number).strip("-.") or "invoice"
    response["Content-Disposition"] = f'attachment; filename="{name}.pdf"'
    never_keep(response)
    return response


def _found(organization: Organization, invoice: str) -> InvoiceRow:
    row = find_invoice(invoice_id=parse_id("invoice", invoice))
    if row is None or row.tenant_id != organization.tenant_id:
        raise Http404
    return row


def _address(organization: Organization) -> str:
    return reverse("console:requested-invoices", args=[organization.public_id])


def _month_start(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _choices(tenant_id: UUID, currency: str, month: datetime) -> list[tuple[str, str]]:
    """Each with how much it would cover."""
    choices = []
    for value, to_at in ((NOW, None), (LAST_MONTH, month)):
        room = invoiceable(tenant_id=tenant_id, to_at=to_at)
        amount = amount_text(room.amount_nanos if room else 0, currency)
        if to_at is None:
            choices.append((value, _("Now: %(amount)s") % {"amount": amount}))
        else:
            last_day = date_format(to_at - timedelta(days=1), "DATE_FORMAT")
            words = _("The end of last month (%(day)s, UTC): %(amount)s")
            choices.append((value, words % {"day": last_day, "amount": amount}))
    return choices


def _dialog(
    request: HttpRequest, fragment: str, context: dict[str, Any], title: str, status: int
) -> HttpResponse:
    return show_dialog(
        request, f"console/invoices/{fragment}", context, title=title, section="billing", status=status
    )
