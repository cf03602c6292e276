"""What operators fill in about an organization."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.words import ORDER_KINDS
from portal.kit.clock import utc_now
from portal.kit.money import InvalidAmount, parse_amount
from quotas.models import GIVING_KINDS, MAX_ORDER_NANOS, CreditOrderKind
from quotas.operations import MAX_WELCOME_REASON_LENGTH
from tenants.operations.audit import MAX_REASON_LENGTH
from tenants.operations.interventions import MAX_NOTE_LENGTH

FINISH, CUT = "finish", "cut"
MIN_REASON_LENGTH: Final = 3


def reason_field(
    help_text: Any = "", *, required: bool = True, max_length: int = MAX_REASON_LENGTH
) -> forms.CharField:
    """Why an operator does something. What is too short is said before anything is tried."""
    return forms.CharField(
        label=gettext_lazy("Reason"),
        min_length=MIN_REASON_LENGTH,
        max_length=max_length,
        required=required,
        help_text=help_text,
        widget=forms.Textarea(attrs={"rows": 2}),
    )


class ReasonForm(forms.Form):
    reason = reason_field(gettext_lazy("Stands in the audit log; the organization does not see it."))


class OptionalReasonForm(forms.Form):
    reason = reason_field(
        gettext_lazy("Stands in the audit log; the organization does not see it."), required=False
    )


class ToldReasonForm(forms.Form):
    reason = reason_field(gettext_lazy("Stands in the audit log, and the organization reads it."))


class WelcomeReasonForm(forms.Form):
    reason = reason_field(
        gettext_lazy("Stands in the audit log, and the organization reads it."),
        max_length=MAX_WELCOME_REASON_LENGTH,
    )


class SuspendForm(forms.Form):
    """confirm: the organization's name, letter for letter."""

    calls = forms.ChoiceField(
        label=gettext_lazy("Calls under way"),
        choices=((FINISH, gettext_lazy("Let them finish")), (CUT, gettext_lazy("Cut them within a second"))),
        initial=FINISH,
        widget=forms.RadioSelect,
    )
    reason = reason_field(gettext_lazy("Its members read this in a mail, and it stands in the audit log."))
    confirm = forms.CharField(widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}))

    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name
        self.fields["confirm"].label = _("Type %(name)s to confirm") % {"name": name}
        self.fields["confirm"].widget.attrs["data-confirm-name"] = name

    def clean_confirm(self) -> str:
        if self.cleaned_data["confirm"].strip() != self.name:
            raise ValidationError(_("That is not the name of the organization."))
        return self.name


class NoteForm(forms.Form):
    text = forms.CharField(
        label=gettext_lazy("Note"),
        max_length=MAX_NOTE_LENGTH,
        help_text=gettext_lazy("For operators only. Notes stay as they are."),
        widget=forms.Textarea(attrs={"rows": 4}),
    )


class CreditForm(forms.Form):
    """amount: decimal text of the organization's currency, exact to a billionth; becomes nano-units."""

    kind = forms.ChoiceField(label=gettext_lazy("What to do"), choices=list(ORDER_KINDS.items()))
    amount = forms.CharField(
        max_length=32,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "placeholder": "0.00"}),
    )
    expires_on = forms.DateField(
        label=gettext_lazy("Expires on"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text=gettext_lazy(
            "Of free credit and goodwill: what is left goes when this day begins (UTC). Empty: never."
        ),
    )
    reason = reason_field(
        gettext_lazy("Stands in the audit log; in its statement the organization sees what was done only.")
    )

    def __init__(self, *args: Any, currency: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"].label = _("Amount in %(currency)s") % {"currency": currency}
        self.fields["amount"].help_text = _("Of a credit line: how far the balance may fall below zero.")

    def clean_amount(self) -> int:
        try:
            amount_nanos = parse_amount(self.cleaned_data["amount"])
        except InvalidAmount:
            raise ValidationError(
                _("Write a plain number with a point, such as 25 or 0.50, with at most nine decimals.")
            ) from None
        if not 0 <= amount_nanos <= MAX_ORDER_NANOS:
            raise ValidationError(_("An order is about at most a million."))
        return amount_nanos

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if cleaned and cleaned.get("amount") == 0 and cleaned.get("kind") != CreditOrderKind.CREDIT_LINE:
            self.add_error("amount", _("The amount has to be more than zero."))
        if cleaned and cleaned.get("expires_on"):
            if cleaned.get("kind") not in GIVING_KINDS:
                self.add_error("expires_on", _("Only free credit and goodwill expire."))
            elif cleaned["expires_on"] <= utc_now().date():
                self.add_error("expires_on", _("Choose a day after today."))
        return cleaned
