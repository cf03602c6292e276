"""What operators fill in to draft, publish and end a price."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants.operations.audit import MAX_REASON_LENGTH

MONDAY: Final = 0


class MomentForm(forms.Form):
    """A moment by a local clock, and why."""

    date = forms.DateField(label=gettext_lazy("Date"), widget=forms.DateInput(attrs={"type": "date"}))
    time = forms.TimeField(
        label=gettext_lazy("Time"), widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    )
    zone = forms.CharField(
        label=gettext_lazy("Time zone"),
        max_length=64,
        widget=forms.TextInput(attrs={"list": "time-zones", "autocomplete": "off", "spellcheck": "false"}),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        min_length=3,
        max_length=MAX_REASON_LENGTH,
        help_text=gettext_lazy("Stands in the audit log; organizations do not see it."),
        widget=forms.Textarea(attrs={"rows": 2}),
    )

    def clean_zone(self) -> str:
        zone = str(self.cleaned_data["zone"]).strip()
        if _zone(zone) is None:
            raise ValidationError(_("Write the name of a time zone, such as Europe/Berlin."))
        return zone

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        day, clock, zone = cleaned.get("date"), cleaned.get("time"), cleaned.get("zone")
        if day is not None and clock is not None and zone is not None:
            moment = local_moment(day, clock, zone)
            if moment is None:
                self.add_error("time", _("The clocks skip this time on that day. Choose another."))
            else:
                cleaned["moment"] = moment
        return cleaned

    def check(self) -> None:
        """Read what was typed to see what would happen, for which no reason is needed yet."""
        self.is_valid()
        self.errors.pop("reason", None)

    @property
    def moment(self) -> datetime | None:
        """What was chosen; None while it cannot be read."""
        found: datetime | None = getattr(self, "cleaned_data", {}).get("moment")
        return found


class PublishForm(MomentForm):
    replaces = forms.BooleanField(
        label=gettext_lazy("Withdraw what is scheduled later, so that this price counts for good"),
        required=False,
    )


class DraftForm(forms.Form):
    """A new draft: of which price, and what it begins with."""

    model = forms.CharField(
        label=gettext_lazy("Model"),
        max_length=120,
        widget=forms.TextInput(attrs={"list": "model-slugs", "autocomplete": "off", "spellcheck": "false"}),
    )
    currency = forms.ChoiceField(label=gettext_lazy("Currency"))
    organization = forms.CharField(
        label=gettext_lazy("Organization"),
        max_length=254,
        required=False,
        help_text=gettext_lazy(
            "Only for a private price: its name, its id, or the address of a member. Empty is the list."
        ),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    begins = forms.ChoiceField(
        label=gettext_lazy("Begin with"),
        choices=[("copy", gettext_lazy("the price in force")), ("empty", gettext_lazy("an empty form"))],
        widget=forms.RadioSelect,
    )

    def __init__(self, *args: Any, currencies: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["currency"]
        field.choices = [(code, code) for code in currencies]


class DiscardForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=MAX_REASON_LENGTH,
        required=False,
        help_text=gettext_lazy("Stands in the audit log."),
        widget=forms.Textarea(attrs={"rows": 2}),
    )


def local_moment(day: Any, clock: time, zone: str) -> datetime | None:
    """The moment when local clocks show this; the first one when they show it twice, None when never, and at
    the ends of the calendar, where it is no day in UTC."""
    tz = _zone(zone)
    if tz is None:
        return None
    moment = datetime.combine(day, clock, tzinfo=tz)
    try:
        utc = moment.astimezone(ZoneInfo("UTC"))
        shown = utc.astimezone(tz)
    except OverflowError:
        return None
    return utc if shown.replace(tzinfo=None) == moment.replace(tzinfo=None) else None


def next_monday(earliest_at: datetime, zone: str) -> datetime:
    """The first Monday 00:00 by the clocks of a zone that is not before a moment, in that zone."""
    tz = _zone(zone) or ZoneInfo("UTC")
    local = earliest_at.astimezone(tz)
    day = local.date() + timedelta(days=(MONDAY - local.weekday()) % 7)
    monday = datetime.combine(day, time(), tzinfo=tz)
    return monday if monday >= local else datetime.combine(day + timedelta(days=7), time(), tzinfo=tz)


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
