"""What operators fill in about bank transfers and invoices."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.tenants.forms import reason_field
from portal.kit.money import InvalidAmount, parse_amount
from quotas.models import MAX_DOCUMENT_BYTES, MAX_ORDER_NANOS
from quotas.payments import bank, invoicing

_AMOUNT_WIDTH: Final = 32
MEBIBYTE: Final = 2**20


def _amount(text: str) -> int:
    try:
        amount_nanos = parse_amount(text)
    except InvalidAmount:
        raise ValidationError(_("Write a plain number with a point, such as 25 or 0.50.")) from None
    if not 0 <= amount_nanos <= MAX_ORDER_NANOS:
        raise ValidationError(_("A transfer is about at most a million."))
    return amount_nanos


def _amount_field(label: Any, help_text: Any = "", *, required: bool = True) -> forms.CharField:
    return forms.CharField(
        label=label,
        max_length=_AMOUNT_WIDTH,
        required=required,
        help_text=help_text,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "placeholder": "0.00"}),
    )


class ReceiptForm(forms.Form):
    """A line of the bank's statement. amount and tax become nano-units."""

    payee = forms.CharField(
        label=gettext_lazy("Transfer reference"),
        max_length=500,
        help_text=gettext_lazy(
            "Or the whole purpose of the transfer, in which it is found. If the payer forgot it: the "
            "organization's ID."
        ),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    amount = _amount_field(gettext_lazy("Amount that came in"))
    currency = forms.ChoiceField(label=gettext_lazy("Currency"))
    tax = _amount_field(
        gettext_lazy("Tax in it"),
        gettext_lazy("What of the amount is tax and becomes no credit."),
        required=False,
    )
    value_date = forms.DateField(
        label=gettext_lazy("Value date"), widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    )
    transaction_id = forms.CharField(
        label=gettext_lazy("The bank's own ID of the line"),
        max_length=bank.MAX_LINE_LENGTH,
        help_text=gettext_lazy("Nobody can record the same line twice."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    payer_name = forms.CharField(
        label=gettext_lazy("Payer"),
        max_length=bank.MAX_PAYER_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    reason = reason_field(gettext_lazy("Where it was seen. Stands in the audit log."))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["currency"].choices = [  # type: ignore[attr-defined]
            (currency, currency) for currency in settings.CURRENCIES
        ]

    def clean_amount(self) -> int:
        return _amount(self.cleaned_data["amount"])

    def clean_tax(self) -> int:
        return _amount(self.cleaned_data["tax"] or "0")

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if cleaned and not cleaned.get("tax", 0) < cleaned.get("amount", 1):
            self.add_error("amount", _("The amount has to be more than the tax in it."))
        return cleaned


class DocumentForm(forms.Form):
    """The number and the PDF of an invoice or a credit note; `content` is its bytes."""

    number = forms.CharField(
        label=gettext_lazy("Number"),
        max_length=invoicing.MAX_NUMBER_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    document = forms.FileField(
        label=gettext_lazy("PDF"),
        widget=forms.FileInput(attrs={"accept": "application/pdf"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["document"].help_text = _("At most %(size)s MiB.") % {
            "size": MAX_DOCUMENT_BYTES // MEBIBYTE
        }

    def clean_document(self) -> bytes:
        """The bytes. What is too long is not read."""
        upload: UploadedFile[Any] = self.cleaned_data["document"]
        if (upload.size or 0) > MAX_DOCUMENT_BYTES:
            raise ValidationError(_("The file is too long."))
        try:
            return invoicing.checked_pdf(upload.read())
        except invoicing.InvalidDocument:
            raise ValidationError(_("The file is no whole PDF.")) from None


class CreditNoteForm(DocumentForm):
    reason = reason_field(gettext_lazy("Stands in the audit log, and the organization reads it."))


class ProfileForm(forms.Form):
    """legal_name, tax_id: as the operator has seen them."""

    legal_name = forms.CharField(widget=forms.HiddenInput, max_length=200, strip=False)
    tax_id = forms.CharField(widget=forms.HiddenInput, max_length=64, strip=False)
    reason = reason_field(gettext_lazy("How it was checked. Stands in the audit log."))


class RefusedProfileForm(ProfileForm):
    reason = reason_field(gettext_lazy("Stands in the audit log, and the organization reads it."))
