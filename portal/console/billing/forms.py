"""How much credit to buy: one of the operator's amounts, or another one within limits."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount
from portal.pages.tags import amount_text
from quotas.payments.policy import PaymentPolicy

OTHER: Final = "other"


class AddCreditForm(forms.Form):
    """`amount` is the decimal text of an offered amount, or OTHER, which `other` then says.

    cleaned_data["amount_nanos"]: what is to be bought.
    """

    amount = forms.ChoiceField(label=gettext_lazy("Amount"), widget=forms.RadioSelect)
    other = forms.CharField(
        label=gettext_lazy("Another amount"),
        required=False,
        max_length=32,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    keeps_method = forms.BooleanField(
        label=gettext_lazy("Keep the payment method for auto-recharge"),
        required=False,
        help_text=gettext_lazy(
            "It is kept by the payment provider and charged only once auto-recharge is switched on. "
            "Alipay and WeChat Pay cannot be kept."
        ),
    )

    def __init__(self, data: QueryDict | None, *, policy: PaymentPolicy, currency: str) -> None:
        offered = policy.amounts(currency)
        # The second least is picked already, for whoever does not want to think.
        picked = amount_to_decimal_text(offered[min(1, len(offered) - 1)]) if offered else OTHER
        super().__init__(data, initial={"amount": picked}, auto_id="add_credit_%s")
        self.policy = policy
        self.currency = currency
        choices = [(amount_to_decimal_text(nanos), _shown(nanos, currency)) for nanos in offered]
        amount = self.fields["amount"]
        assert isinstance(amount, forms.ChoiceField)
        amount.choices = [*choices, (OTHER, _("Another amount"))] if policy.is_free else choices
        if not policy.is_free:
            del self.fields["other"]
            return
        self.fields["other"].help_text = _("In %(currency)s, from %(lowest)s to %(highest)s.") % {
            "currency": currency,
            **self._bounds(),
        }

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        chosen = values.get("amount")
        if chosen is None:
            return values
        field = "other" if chosen == OTHER else "amount"
        try:
            amount_nanos = parse_amount((values.get(field) or "").strip().replace(",", ""))
        except InvalidAmount:
            self.add_error(field, _("Give an amount such as 25 or 12.50."))
            return values
        if not self.policy.offers(amount_nanos, self.currency):
            self.refuse_amount()
        values["amount_nanos"] = amount_nanos
        return values

    def refuse_amount(self) -> None:
        """Say beside the field which amounts there are."""
        if self.cleaned_data.get("amount") == OTHER:
            text = _("Credit is added from %(lowest)s to %(highest)s at a time, with at most two decimals.")
            self.add_error("other", text % self._bounds())
        else:
            self.add_error("amount", _("This amount is no longer offered."))

    def _bounds(self) -> dict[str, str]:
        return {
            "lowest": _shown(self.policy.lowest_nanos, self.currency),
            "highest": _shown(self.policy.highest_nanos, self.currency),
        }


def _shown(amount_nanos: int, currency: str) -> str:
    """`$20`, `$12.50`: whole amounts without decimals, as on a price tag."""
    return amount_text(amount_nanos, currency).removesuffix(".00")
