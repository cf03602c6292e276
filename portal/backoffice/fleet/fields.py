"""Fields that people fill in with decimals, and that the domain keeps as whole numbers of small units."""

import re
from datetime import UTC
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

_DECIMAL: Final = re.compile(r"([0-9]{1,15})(?:[.,]([0-9]{1,9}))?")


def scaled_text(number: int, places: int) -> str:
    """The shortest decimal text of a number of small units: 1250 of three places is `1.25`."""
    whole, rest = divmod(number, 10**places)
    fraction = f"{rest:0{places}d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)


class ScaledField(forms.CharField):
    """A decimal number, exact, as so many units of 10^-places. low, high: in these units."""

    def __init__(self, *, places: int, low: int, high: int, **options: Any) -> None:
        options.setdefault(
            "widget",
            forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "class": "num"}),
        )
        super().__init__(max_length=32, **options)
        self.places = places
        self.low, self.high = low, high

    def clean(self, value: Any) -> Any:
        """Errors: ValidationError for what is no such number; nothing is rounded."""
        text = str(super().clean(value))
        match = _DECIMAL.fullmatch(text)
        if match is None:
            raise ValidationError(_("Enter a plain decimal number."))
        fraction = (match[2] or "").rstrip("0")
        if len(fraction) > self.places:
            raise ValidationError(_("At most %(places)d decimals are kept."), params={"places": self.places})
        number = int(match[1]) * 10**self.places + int(fraction.ljust(self.places, "0") or "0")
        if not self.low <= number <= self.high:
            raise ValidationError(
                _("Enter a number from %(low)s to %(high)s."),
                params={
                    "low": scaled_text(self.low, self.places),
                    "high": scaled_text(self.high, self.places),
                },
            )
        return number

    def prepare_value(self, value: Any) -> Any:
        return scaled_text(value, self.places) if isinstance(value, int) else value


class UtcMomentField(forms.DateTimeField):
    """A moment to the minute, written in UTC. Empty means now."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")

    def __init__(self, **options: Any) -> None:
        options.setdefault("required", False)
        options.setdefault("label", gettext_lazy("From"))
        options.setdefault("help_text", gettext_lazy("In UTC. Empty: from now on."))
        super().__init__(**options)

    def to_python(self, value: Any) -> Any:
        with timezone.override(UTC):
            return super().to_python(value)

    def prepare_value(self, value: Any) -> Any:
        with timezone.override(UTC):
            return super().prepare_value(value)
