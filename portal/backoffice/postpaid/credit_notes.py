"""Ordering a credit note on an invoice that is final."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.pages import note_refusal, operator_actor, operator_page, show_dialog
from portal.backoffice.postpaid.invoices import found_invoice
from portal.backoffice.tenants.forms import reason_field
from portal.kit.clock import utc_now
from portal.kit.money import InvalidAmount, parse_amount
from portal.pages.answers import done
from portal.pages.tags import amount_text
from quotas.models import CreditNoteState
from quotas.payments.client import PaymentsNotConfigured
from quotas.payments.giving_back import AboveLimit
from quotas.payments.postpaid.credit_notes import (
    InvalidCredit,
    NotCorrectable,
    Ordered,
    order_credit_note,
)
from quotas.payments.postpaid.queries import InvoiceRow

FORM_METHODS: Final = ("GET", "HEAD", "POST")


class CreditNoteForm(forms.Form):
    """amount: its cleaned value is in nano-units."""

    amount = forms.CharField(
        max_length=32,
        help_text=gettext_lazy("Net of tax."),
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "placeholder": "0.00"}),
    )
    reason = reason_field(gettext_lazy("Stands on the credit note and in the audit log."))

    def __init__(self, *args: Any, currency: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"].label = _("Amount in %(currency)s") % {"currency": currency}

    def clean_amount(self) -> int:
        try:
            return parse_amount(self.cleaned_data["amount"].strip())
        except InvalidAmount:
            raise forms.ValidationError(_("Write a plain number with a point, such as 25 or 0.50.")) from None


@operator_page(methods=FORM_METHODS, atomic=False)
def credit_note(request: HttpRequest, monthly_invoice: str) -> HttpResponse:
    """GET the form, with what is left; POST amount and reason."""
    found = found_invoice(monthly_invoice)
    form = CreditNoteForm(
        request.POST if request.method == "POST" else None, currency=found.row.currency, auto_id="note_%s"
    )
    address = reverse("backoffice:postpaid-invoice", args=[found.row.public_id])
    if request.method == "POST" and form.is_valid():
        ordered = _order(request, found.row, form)
        if ordered is not None:
            return done(request, address, _ordered_text(ordered))
    context: dict[str, Any] = {"form": form, "found": found, "back_url": address, "post_url": request.path}
    return show_dialog(
        request,
        "backoffice/postpaid/_credit_note.html",
        context,
        title=_("Credit note on %(invoice)s") % {"invoice": found.row.number or found.row.public_id},
        section="payments",
        status=422 if form.errors else 200,
    )


def _order(request: HttpRequest, row: InvoiceRow, form: CreditNoteForm) -> Ordered | None:
    """What was ordered; None when the form says why not."""
    try:
        return order_credit_note(
            invoice_id=row.id,
            amount_nanos=form.cleaned_data["amount"],
            reason=form.cleaned_data["reason"],
            actor=operator_actor(request),
            now=utc_now(),
        )
    except InvalidCredit as error:
        most = amount_text(error.most_nanos, row.currency)
        form.add_error("amount", _("Whole coins, more than nothing and at most %(most)s.") % {"most": most})
    except NotCorrectable:
        form.add_error(None, _("This invoice takes no credit note."))
    except AboveLimit as error:
        note_refusal(
            request,
            action="credit_note.order",
            reason="Above what one operator gives back within a day.",
            tenant_id=row.tenant_id,
            target=row.public_id,
        )
        left = amount_text(error.left_nanos, row.currency)
        form.add_error(
            None,
            _("That is more than one operator gives back within a day: %(left)s is left of yours.")
            % {"left": left},
        )
    except PaymentsNotConfigured:
        form.add_error(None, _("This installation has no key of Stripe."))
    return None


def _ordered_text(ordered: Ordered) -> str:
    if ordered.state == CreditNoteState.ISSUED:
        return _("The credit note is issued.")
    if ordered.state == CreditNoteState.FAILED:
        return _("Stripe refused the credit note: %(text)s") % {"text": ordered.failure_text}
    return _("The credit note is on its way.")
