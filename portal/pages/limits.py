"""Limits on pages, of organizations and of operators alike: their names, their forms, and their lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount
from portal.pages.access import optional_id
from portal.pages.tags import amount_text, count_text
from quotas.limits.operations import MAX_ALERTS, AboveCeiling
from quotas.limits.queries import EffectiveLimits, LimitLine, LimitScope
from quotas.limits.values import LimitSource, SetValue
from quotas.models import BUDGET_KINDS, LimitKind
from quotas.models.limits import MAX_LIMIT

KIND_NAMES: Final = {
    LimitKind.REQUESTS_RPM: gettext_lazy("Requests per minute"),
    LimitKind.TOKENS_TPM: gettext_lazy("Tokens per minute"),
    LimitKind.CONCURRENCY: gettext_lazy("Calls at a time"),
    LimitKind.TOKENS_DAY: gettext_lazy("Tokens per day"),
    LimitKind.TOKENS_MONTH: gettext_lazy("Tokens per month"),
    LimitKind.MONEY_DAY: gettext_lazy("Money per day"),
    LimitKind.MONEY_MONTH: gettext_lazy("Money per month"),
}
SOURCE_NAMES: Final = {
    LimitSource.TIER: gettext_lazy("Tier"),
    LimitSource.OPERATOR: gettext_lazy("Set by the operator"),
    LimitSource.TENANT: gettext_lazy("Your own"),
    LimitSource.INSTALLATION: gettext_lazy("Default of the service"),
}
DEFAULT_ALERTS: Final = (50, 80, 100)
WARN_PERCENT: Final = 80
TIGHT_PERCENT: Final = 90
_SEPARATORS: Final = re.compile(r"[,_\s]")
_BETWEEN_PERCENTS: Final = re.compile(r"[\s,;%，；、]+")
_DIGITS: Final = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A row of the table of effective limits."""

    line: LimitLine
    currency: str

    @property
    def name(self) -> str:
        return str(KIND_NAMES[self.line.kind])

    @property
    def source_name(self) -> str:
        return str(SOURCE_NAMES[self.line.source])

    @property
    def is_money(self) -> bool:
        return self.line.kind in BUDGET_KINDS

    @property
    def meter_percent(self) -> int:
        return max(0, min(100, self.line.percent or 0))

    @property
    def tone(self) -> str:
        if self.meter_percent >= 100:
            return "bad"
        return "warn" if self.meter_percent >= WARN_PERCENT else ""

    @property
    def is_tight(self) -> bool:
        """Not used up, but calls that may need more than the rest are refused."""
        percent = self.line.percent
        return self.line.is_hard and percent is not None and TIGHT_PERCENT <= percent < 100

    @property
    def has_no_effect(self) -> bool:
        """An own value that is above what tier or operator allow by now."""
        own = self.line.of_tenant
        return own is not None and self.line.is_hard and own.value > self.line.value

    @property
    def scope_name(self) -> str:
        return scope_name(self.line.scope)

    @property
    def values(self) -> list[tuple[str, SetValue | None, bool]]:
        """Whose value, the value, and whether it is the one that applies: in the order of the columns."""
        line = self.line
        first = line.of_tier or line.of_installation
        return [
            ("tier", first, line.source in (LimitSource.TIER, LimitSource.INSTALLATION)),
            ("operator", line.of_operator, line.source == LimitSource.OPERATOR),
            ("own", line.of_tenant, line.source == LimitSource.TENANT),
        ]


@dataclass(frozen=True, slots=True)
class LineGroup:
    """The rows of one scope."""

    title: str
    scope: LimitScope
    rows: tuple[ShownLine, ...]


def line_groups(limits: EffectiveLimits) -> list[LineGroup]:
    """The effective limits by scope: the organization first, then models, keys, models through keys."""
    return [
        LineGroup(scope_name(scope), scope, tuple(ShownLine(line, limits.currency) for line in lines))
        for scope, lines in groupby(limits.lines, key=lambda line: line.scope)
    ]


def scope_name(scope: LimitScope) -> str:
    """Whose calls a limit counts, in words."""
    names = {"model": scope.model_slug, "key": scope.key_name or scope.key_public_id}
    if scope.is_organization:
        return _("The whole organization")
    if scope.api_key_id is None:
        return names["model"]
    if scope.model_id is None:
        return _("Key “%(key)s”") % names
    return _("%(model)s with the key “%(key)s”") % names


def value_text(kind: LimitKind, value: int, currency: str) -> str:
    """A value as people read it."""
    return amount_text(value, currency) if kind in BUDGET_KINDS else count_text(value)


def ceiling_text(error: AboveCeiling, kind: LimitKind, currency: str) -> str:
    """Why an own limit is refused, naming what is allowed."""
    names = {"ceiling": value_text(kind, error.ceiling, currency)}
    if error.source == LimitSource.OPERATOR:
        return _("It would have no effect: the operator allows %(ceiling)s at most.") % names
    if error.source == LimitSource.TIER:
        return _("It would have no effect: the tier allows %(ceiling)s at most.") % names
    return _("It would have no effect: the service allows %(ceiling)s at most.") % names


def parse_value(kind: LimitKind, text: str) -> int:
    """The value of a text: money as a decimal number, everything else whole, perhaps with separators.

    Errors: forms.ValidationError.
    """
    if kind in BUDGET_KINDS:
        try:
            value = parse_amount(text.strip())
        except InvalidAmount:
            raise forms.ValidationError(
                _("Enter an amount such as 12.50, with at most nine decimals.")
            ) from None
    else:
        digits = _SEPARATORS.sub("", text)
        if not _DIGITS.fullmatch(digits):
            raise forms.ValidationError(_("Enter a whole number."))
        value = int(digits)
    if not 0 <= value <= MAX_LIMIT:
        raise forms.ValidationError(_("Enter a number from 0 on, and not so large."))
    return value


def plain_value(kind: LimitKind, value: int) -> str:
    """What parse_value reads back."""
    return amount_to_decimal_text(value) if kind in BUDGET_KINDS else str(value)


def parse_alerts(text: str) -> tuple[int, ...]:
    """Percentages of a text such as `50, 80, 100`, in ascending order. Errors: forms.ValidationError."""
    words = [word for word in _BETWEEN_PERCENTS.split(text) if word]
    percents = sorted({int(word) for word in words if _DIGITS.fullmatch(word)})
    if not all(_DIGITS.fullmatch(word) for word in words) or not all(1 <= one <= 100 for one in percents):
        raise forms.ValidationError(_("Enter percentages from 1 to 100, such as 50, 80, 100."))
    if len(percents) > MAX_ALERTS:
        raise forms.ValidationError(_("Enter at most %(count)d percentages.") % {"count": MAX_ALERTS})
    return tuple(percents)


class ValueForm(forms.Form):
    """The value of a limit whose scope and kind are settled; of a budget also alerts and whether it refuses.

    Valid, it has `limit_value`, `alert_percents`, `is_hard` and, with an end, `ends_at`.
    """

    value = forms.CharField(label=gettext_lazy("At most"), max_length=40)
    is_hard = forms.BooleanField(
        label=gettext_lazy("Refuse calls when it is used up"),
        required=False,
        initial=True,
        help_text=gettext_lazy("Without it the budget only sends alerts."),
    )
    alerts = forms.CharField(
        label=gettext_lazy("Send an alert at"),
        required=False,
        max_length=40,
        initial=", ".join(str(one) for one in DEFAULT_ALERTS),
        help_text=gettext_lazy(
            "Percent of the budget, five at most. Owners, admins and billing members get a mail."
        ),
    )

    def __init__(self, *args: Any, kind: LimitKind | None, currency: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.settled_kind = kind
        self.currency = currency
        self.fields["value"].widget.attrs.update({"autocomplete": "off", "spellcheck": "false"})
        if kind is not None and kind not in BUDGET_KINDS:
            del self.fields["is_hard"], self.fields["alerts"]
        if kind is None:
            help_text = _("A whole number, or an amount of %(currency)s such as 12.50. 0 stops every call.")
        elif kind in BUDGET_KINDS:
            help_text = _("An amount of %(currency)s such as 12.50. 0 stops every call.")
        else:
            help_text = _("A whole number. 0 stops every call.")
        self.fields["value"].help_text = help_text % {"currency": currency}

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        kind = self.settled_kind or values.get("kind")
        if not kind:
            return values
        is_money = kind in BUDGET_KINDS
        values["limit_value"] = self._parsed("value", lambda text: parse_value(LimitKind(kind), text))
        values["alert_percents"] = self._parsed("alerts", parse_alerts) if is_money else ()
        values["is_hard"] = bool(values.get("is_hard")) if is_money else True
        if is_money and not values["is_hard"] and not values["alert_percents"] and not self.errors:
            self.add_error("alerts", _("A budget that refuses nothing needs at least one alert."))
        return values

    def _parsed(self, name: str, parse: Any) -> Any:
        if name in self.errors:
            return None
        try:
            return parse(self.cleaned_data.get(name) or "")
        except forms.ValidationError as error:
            self.add_error(name, error)
            return None


class NewLimitForm(ValueForm):
    """All of a limit. Valid, it also has `limit_kind`, `model_id` and `api_key_id`."""

    kind = forms.ChoiceField(label=gettext_lazy("What is limited"))
    model = forms.ChoiceField(label=gettext_lazy("Model"), required=False)
    key = forms.ChoiceField(label=gettext_lazy("API key"), required=False)
    field_order: Sequence[str] = ("kind", "model", "key", "value", "is_hard", "alerts")

    def __init__(
        self,
        *args: Any,
        currency: str,
        models: Sequence[tuple[UUID, str]],
        keys: Sequence[tuple[str, str]],
        **options: Any,
    ) -> None:
        super().__init__(*args, kind=None, currency=currency, **options)
        self._models = {slug: model_id for model_id, slug in models}
        self.fields["kind"].choices = list(KIND_NAMES.items())  # type: ignore[attr-defined]
        self.fields["model"].choices = [  # type: ignore[attr-defined]
            ("", _("Every model")),
            *((slug, slug) for slug in sorted(self._models)),
        ]
        self.fields["key"].choices = [("", _("Every key")), *keys]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        values["limit_kind"] = LimitKind(values["kind"]) if values.get("kind") else None
        values["model_id"] = self._models.get(values.get("model", ""))
        values["api_key_id"] = optional_id("api_key", values.get("key", ""))
        return values


class ReasonMixin(forms.Form):
    """What operators add to a change: why, and until when it lasts. Valid, it has `ends_at`."""

    ends_on = forms.DateField(
        label=gettext_lazy("Last day"),
        required=False,
        help_text=gettext_lazy("In UTC. Without it the limit has no end."),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        input_formats=["%Y-%m-%d"],
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        min_length=3,
        max_length=500,
        help_text=gettext_lazy("It goes into the audit log."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        values["ends_at"] = end_of(values.get("ends_on"))
        return values


def end_of(day: date | None) -> datetime | None:
    """The moment at which a last day is over (UTC)."""
    return None if day is None else datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)
