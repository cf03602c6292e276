"""The forms of tiers and of what operators set for one organization."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Any, Final
from uuid import UUID

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount
from portal.pages.limits import KIND_NAMES, NewLimitForm, ReasonMixin, ValueForm, parse_value, plain_value
from quotas.limits.tiers import MAX_RANK, TierCeiling, TierRow
from quotas.models import BUDGET_KINDS, LimitKind

SPARE_ROWS: Final = 3


class OperatorLimitForm(ReasonMixin, NewLimitForm):
    """An operator's limit for an organization."""

    field_order: Sequence[str] = ("kind", "model", "key", "value", "is_hard", "alerts", "ends_on", "reason")


class OperatorValueForm(ReasonMixin, ValueForm):
    """Another value of an operator's limit."""

    field_order = ("value", "is_hard", "alerts", "ends_on", "reason")


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        min_length=3,
        max_length=500,
        help_text=gettext_lazy("It goes into the audit log."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class OverrideForm(ReasonMixin):
    """A tier for one organization. Valid, it has `tier` as public id and `starts_at`, None for now."""

    tier = forms.ChoiceField(label=gettext_lazy("Tier"))
    starts_on = forms.DateField(
        label=gettext_lazy("First day"),
        required=False,
        help_text=gettext_lazy("In UTC. Without it, from now on."),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        input_formats=["%Y-%m-%d"],
    )
    field_order = ("tier", "starts_on", "ends_on", "reason")

    def __init__(self, *args: Any, tiers: Sequence[TierRow], **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["tier"].choices = [(row.public_id, row.name) for row in tiers]  # type: ignore[attr-defined]
        self.fields["ends_on"].help_text = _("In UTC. Without it the override has no end.")


class AmountField(forms.CharField):
    """An amount of money as nano-units; None when empty."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=32, required=False, **options)

    def clean(self, value: Any) -> Any:
        text = str(super().clean(value)).strip()
        try:
            return parse_amount(text) if text else None
        except InvalidAmount:
            raise forms.ValidationError(
                _("Enter an amount such as 12.50, with at most nine decimals.")
            ) from None


class CountField(forms.CharField):
    """A whole number, perhaps with separators; None when empty."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=32, required=False, **options)

    def clean(self, value: Any) -> Any:
        text = str(super().clean(value)).strip()
        return parse_value(LimitKind.REQUESTS_RPM, text) if text else None


class TierForm(ReasonForm):
    """A tier, its rules and its limits for whole organizations. Valid, it has `rules` and `ceilings`."""

    code = forms.CharField(
        label=gettext_lazy("Code"),
        max_length=32,
        help_text=gettext_lazy("Lower-case letters, digits and hyphens."),
    )
    name = forms.CharField(label=gettext_lazy("Name"), max_length=64)
    rank = forms.IntegerField(
        label=gettext_lazy("Rank"),
        min_value=0,
        max_value=MAX_RANK,
        help_text=gettext_lazy("Organizations rise from lower to higher ranks."),
    )
    is_default = forms.BooleanField(
        label=gettext_lazy("Everybody's tier until another one is reached"), required=False
    )

    def __init__(self, *args: Any, currencies: Sequence[str], tier: TierRow | None, **options: Any) -> None:
        options["initial"] = {**_initial(tier), **(options.get("initial") or {})}
        super().__init__(*args, **options)
        held = {limit.currency for limit in tier.limits} | set(tier.rules) if tier else set()
        self._currencies = sorted({*currencies, *held} - {""})
        for currency in self._currencies:
            self.fields[f"paid_{currency}"] = AmountField(
                label=_("Paid at least, %(currency)s") % {"currency": currency}
            )
        for kind, name in KIND_NAMES.items():
            if kind in BUDGET_KINDS:
                for currency in self._currencies:
                    self.fields[f"{kind}_{currency}"] = AmountField(label=f"{name}, {currency}")
            else:
                self.fields[kind.value] = CountField(label=name)

    @property
    def rule_fields(self) -> list[forms.BoundField]:
        return [self[f"paid_{currency}"] for currency in self._currencies]

    @property
    def limit_fields(self) -> list[forms.BoundField]:
        kinds = tuple(kind.value for kind in LimitKind)
        return [self[name] for name in self.fields if name.startswith(kinds)]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        paid = {currency: values.get(f"paid_{currency}") for currency in self._currencies}
        values["rules"] = {currency: nanos for currency, nanos in paid.items() if nanos is not None}
        for currency, nanos in values["rules"].items():
            if nanos <= 0:
                self.add_error(f"paid_{currency}", _("Enter an amount above zero, or leave it empty."))
        ceilings = [
            TierCeiling(kind, values[kind.value])
            for kind in LimitKind
            if kind not in BUDGET_KINDS and values.get(kind.value) is not None
        ]
        for kind in BUDGET_KINDS:
            for currency in self._currencies:
                value = values.get(f"{kind}_{currency}")
                if value is not None and value < 0:
                    self.add_error(f"{kind}_{currency}", _("Enter a number from 0 on, and not so large."))
                elif value is not None:
                    ceilings.append(TierCeiling(kind, value, currency=currency))
        values["ceilings"] = ceilings
        return values


class ModelRowForm(forms.Form):
    """A tier's limit for one model; an empty row is none. Valid, it has `ceiling`."""

    model = forms.ChoiceField(label=gettext_lazy("Model"), required=False)
    kind = forms.ChoiceField(label=gettext_lazy("What is limited"), required=False)
    value = forms.CharField(label=gettext_lazy("At most"), max_length=32, required=False)
    currency = forms.ChoiceField(label=gettext_lazy("Currency"), required=False)

    def __init__(
        self, *args: Any, models: Sequence[tuple[UUID, str]], currencies: Sequence[str], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._models = {slug: model_id for model_id, slug in models}
        self.fields["model"].choices = [("", "–"), *((slug, slug) for slug in sorted(self._models))]  # type: ignore[attr-defined]
        self.fields["kind"].choices = list(KIND_NAMES.items())  # type: ignore[attr-defined]
        self.fields["currency"].choices = [(one, one) for one in currencies]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        values["ceiling"] = None
        if not values.get("model") or not values.get("value") or self.errors:
            if bool(values.get("model")) != bool(values.get("value")):
                self.add_error("value" if values.get("model") else "model", _("Fill in the whole row."))
            return values
        kind = LimitKind(values["kind"])
        try:
            value = parse_value(kind, values["value"])
        except forms.ValidationError as error:
            self.add_error("value", error)
            return values
        currency = values["currency"] if kind in BUDGET_KINDS else ""
        values["ceiling"] = TierCeiling(kind, value, self._models[values["model"]], currency)
        return values


ModelRows = forms.formset_factory(ModelRowForm, extra=SPARE_ROWS, max_num=100, absolute_max=200)


def model_rows_initial(tier: TierRow | None) -> list[dict[str, str]]:
    """A tier's limits for models, as its rows show them."""
    return [
        {
            "model": limit.model_slug,
            "kind": limit.kind.value,
            "value": plain_value(limit.kind, limit.value),
            "currency": limit.currency,
        }
        for limit in (tier.limits if tier else ())
        if limit.model_id is not None
    ]


def _initial(tier: TierRow | None) -> dict[str, Any]:
    if tier is None:
        return {}
    values: dict[str, Any] = {
        "code": tier.code,
        "name": tier.name,
        "rank": tier.rank,
        "is_default": tier.is_default,
    }
    for currency, nanos in tier.rules.items():
        values[f"paid_{currency}"] = amount_to_decimal_text(nanos)
    for limit in tier.limits:
        if limit.model_id is None:
            name = f"{limit.kind}_{limit.currency}" if limit.currency else limit.kind.value
            values[name] = plain_value(limit.kind, limit.value)
    return values


def first_moment(values: dict[str, Any]) -> datetime | None:
    """When an override begins; None for now."""
    day = values.get("starts_on")
    return None if day is None else datetime.combine(day, time(), tzinfo=UTC)
