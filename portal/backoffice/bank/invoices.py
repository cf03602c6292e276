"""Billing profiles to verify, and invoices to issue, refuse or take back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.backoffice.bank.forms import CreditNoteForm, DocumentForm, ProfileForm, RefusedProfileForm
from portal.backoffice.bank.words import PROFILE_STATES
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.tenants.forms import ToldReasonForm
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import done, show
from portal.pages.words import INVOICE_STATES
from quotas.models import InvoiceState
from quotas.payments import billing_profiles, invoicing
from quotas.payments.invoice_queries import (
    InvoiceRow,
    find_document,
    find_invoice,
    list_invoices,
    waiting_invoices,
)

PAGE_ROWS: Final = 50
FORM_METHODS: Final = ("GET", "HEAD", "POST")


@operator_page()
def invoices(request: HttpRequest) -> HttpResponse:
    """What waits: profiles and requests; and all invoices. In the address: before (further back)."""
    now = utc_now()
    page = list_invoices(before=optional_id("invoice", request.GET.get("before", "")), limit=PAGE_ROWS)
    context = {
        "section": "bank",
        "tab": "invoices",
        "profiles": [
            (row, (now - row.changed_at).total_seconds()) for row in billing_profiles.waiting_profiles()
        ],
        "waiting": [(row, (now - row.requested_at).total_seconds()) for row in waiting_invoices()],
        "invoices": [(row, *INVOICE_STATES[row.state]) for row in page.rows if not row.is_requested],
        "next": public_id(PREFIXES["invoice"], page.next) if page.next else "",
        "is_first": not request.GET.get("before"),
    }
    return show(request, "backoffice/bank/invoices.html", context)


@operator_page(methods=FORM_METHODS)
def verify_profile(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the profile; POST legal_name and tax_id as they were seen, reason."""
    return _decide_profile(
        request,
        organization,
        ProfileForm,
        "verify",
        _("Verify the profile?"),
        billing_profiles.verify_profile,
    )


@operator_page(methods=FORM_METHODS)
def refuse_profile(request: HttpRequest, organization: str) -> HttpResponse:
    """The same, to refuse it."""
    return _decide_profile(
        request,
        organization,
        RefusedProfileForm,
        "refuse",
        _("Refuse the profile?"),
        billing_profiles.refuse_profile,
    )


def _decide_profile(
    request: HttpRequest,
    organization: str,
    form_class: type[ProfileForm],
    verb: str,
    title: str,
    decide: Callable[..., None],
) -> HttpResponse:
    row = billing_profiles.profile_of(tenant_id=parse_id("organization", organization))
    if row is None:
        raise Http404
    # What is decided about is what was looked at: it stands in the form.
    seen = {"legal_name": row.facts.legal_name, "tax_id": row.facts.tax_id}
    form = form_class(
        request.POST if request.method == "POST" else None, initial=seen, auto_id=f"{verb}_profile_%s"
    )
    if request.method == "POST" and form.is_valid():
        try:
            decide(tenant_id=row.tenant_id, actor=operator_actor(request), now=utc_now(), **form.cleaned_data)
        except billing_profiles.ProfileChanged:
            form = form_class(None, initial=seen, auto_id=f"{verb}_profile_%s")
            context = _profile_context(request, row, form, verb) | {"has_changed": True}
            return _dialog(request, "_profile.html", context, title, 422)
        text = (
            _("The profile of %(name)s is verified.")
            if verb == "verify"
            else _("The profile of %(name)s is refused.")
        )
        return done(request, reverse("backoffice:bank-invoices"), text % {"name": row.organization})
    context = _profile_context(request, row, form, verb)
    return _dialog(request, "_profile.html", context, title, 422 if form.errors else 200)


def _profile_context(
    request: HttpRequest, row: billing_profiles.ProfileRow, form: Form, verb: str
) -> dict[str, Any]:
    tone, state = PROFILE_STATES[row.state]
    return {
        "row": row,
        "form": form,
        "verb": verb,
        "post_url": request.path,
        "tone": tone,
        "state": state,
    }


@operator_page(methods=FORM_METHODS)
def issue(request: HttpRequest, invoice: str) -> HttpResponse:
    """GET the form; POST number and document (a PDF). Errors: 422 with the form."""
    row = _found(invoice)
    form = DocumentForm(*_posted(request), auto_id="issue_%s")

    def act(values: dict[str, Any]) -> InvoiceRow:
        return invoicing.issue_invoice(
            invoice_id=row.id,
            number=values["number"],
            content=values["document"],
            actor=operator_actor(request),
            now=utc_now(),
        )

    return _act(request, row, form, "issue", _("Issue the invoice"), InvoiceState.REQUESTED, act)


@operator_page(methods=FORM_METHODS)
def refuse(request: HttpRequest, invoice: str) -> HttpResponse:
    """GET the question; POST reason, which the organization reads."""
    row = _found(invoice)
    form = ToldReasonForm(_posted(request)[0], auto_id="refuse_invoice_%s")

    def act(values: dict[str, Any]) -> InvoiceRow:
        return invoicing.refuse_invoice(
            invoice_id=row.id, actor=operator_actor(request), reason=values["reason"], now=utc_now()
        )

    return _act(request, row, form, "refuse", _("Refuse the request?"), InvoiceState.REQUESTED, act)


@operator_page(methods=FORM_METHODS)
def credit(request: HttpRequest, invoice: str) -> HttpResponse:
    """GET the form; POST the credit note's number and document, and reason."""
    row = _found(invoice)
    form = CreditNoteForm(*_posted(request), auto_id="credit_%s")

    def act(values: dict[str, Any]) -> InvoiceRow:
        return invoicing.credit_invoice(
            invoice_id=row.id,
            number=values["number"],
            content=values["document"],
            actor=operator_actor(request),
            reason=values["reason"],
            now=utc_now(),
        )

    return _act(request, row, form, "credit", _("Take the invoice back"), InvoiceState.ISSUED, act)


@operator_page()
def document(request: HttpRequest, document: str) -> HttpResponse:
    """The PDF of an invoice or a credit note."""
    found = find_document(document_id=parse_id("invoice_document", document))
    if found is None:
        raise Http404
    response = HttpResponse(found.content, content_type="application/pdf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.number).strip("-.") or "invoice"
    response["Content-Disposition"] = f'attachment; filename="{name}.pdf"'
    return response


def _act(
    request: HttpRequest,
    row: InvoiceRow,
    form: Form,
    verb: str,
    title: str,
    needs: InvoiceState,
    act: Callable[[dict[str, Any]], InvoiceRow],
) -> HttpResponse:
    if request.method == "POST" and form.is_valid():
        try:
            changed = act(form.cleaned_data)
        except invoicing.NumberTaken:
            form.add_error("number", _("Another one has this number."))
        except invoicing.InvalidNumber:
            form.add_error("number", _("A number is one short line that can be printed."))
        except invoicing.InvoiceDecided as error:
            form.add_error(
                None, _("It is decided already: %(state)s.") % {"state": INVOICE_STATES[error.state][1]}
            )
        else:
            text = _("The invoice %(id)s: %(state)s.") % {
                "id": changed.number or changed.public_id,
                "state": INVOICE_STATES[changed.state][1],
            }
            return done(request, reverse("backoffice:bank-invoices"), text)
    context = {
        "row": row,
        "form": form,
        "verb": verb,
        "post_url": request.path,
        "state": INVOICE_STATES[row.state][1],
        "is_possible": row.state == needs,
    }
    return _dialog(request, "_invoice.html", context, title, 422 if form.errors else 200)


def _found(invoice: str) -> InvoiceRow:
    row = find_invoice(invoice_id=parse_id("invoice", invoice))
    if row is None:
        raise Http404
    return row


def _posted(request: HttpRequest) -> tuple[Any, Any]:
    return (request.POST, request.FILES) if request.method == "POST" else (None, None)


def _dialog(
    request: HttpRequest, fragment: str, context: dict[str, Any], title: str, status: int
) -> HttpResponse:
    return show_dialog(
        request, f"backoffice/bank/{fragment}", context, title=title, section="bank", status=status
    )
