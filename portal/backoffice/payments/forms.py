"""What operators fill in about payments."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.tenants.forms import reason_field
from portal.kit.money import InvalidAmount, parse_amount

ALL, PART = "all", "part"
_AMOUNT_WIDTH: Final = 32


class RefundForm(forms.Form):
    """amount_nanos is the credit that goes back, net of tax; None for all that is left."""

    share = forms.ChoiceField(
        label=gettext_lazy("How much"),
        choices=((ALL, gettext_lazy("All that is left")), (PART, gettext_lazy("A part of it"))),
        initial=ALL,
        widget=forms.RadioSelect,
    )
    amount = forms.CharField(
        required=False,
        max_length=_AMOUNT_WIDTH,
        help_text=gettext_lazy(
            "Of a part only: the credit, without tax. Its share of the tax goes back with it."
        ),
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "placeholder": "0.00"}),
    )
    reason = reason_field(
        gettext_lazy("Stands in the audit log; in its statement the organization sees a refund.")
    )

    def __init__(self, *args: Any, currency: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"].label = _("Amount in %(currency)s") % {"currency": currency}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if cleaned and cleaned.get("share") == PART:
            cleaned["amount_nanos"] = self._part(cleaned.get("amount", ""))
        elif cleaned:
            cleaned["amount_nanos"] = None
        return cleaned

    def _part(self, text: str) -> int | None:
        try:
            amount_nanos = parse_amount(text)
        except InvalidAmount:
            self.add_error(
                "amount", ValidationError(_("Write a plain number with a point, such as 25 or 0.50."))
            )
            return None
        if amount_nanos <= 0:
            self.add_error("amount", ValidationError(_("The amount has to be more than zero.")))
        return amount_nanos
