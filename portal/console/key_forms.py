"""The form of an API key: what people type, as what the domain takes."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants.operations import MAX_LABEL_LENGTH, MAX_LABELS

NEVER: Final = "never"
ON_DATE: Final = "date"
LIFETIMES_DAYS: Final = (30, 90, 365)
MAX_LIFETIME: Final = timedelta(days=3650)

ALL_MODELS: Final = "all"
LISTED_MODELS: Final = "listed"

MAX_LABEL_TEXT: Final = MAX_LABELS * (2 * MAX_LABEL_LENGTH + 2)


class LabelsField(forms.CharField):
    """One `name=value` a line, as a dict of texts."""

    widget = forms.Textarea

    def to_python(self, value: Any) -> Any:
        """Errors: ValidationError, naming the line."""
        text = super().to_python(value)
        labels: dict[str, str] = {}
        for number, line in enumerate(str(text).splitlines(), start=1):
            name, separator, content = (part.strip() for part in line.partition("="))
            if not line.strip():
                continue
            if not separator or not name:
                raise forms.ValidationError(
                    _("Line %(number)d is not of the form name=value."), params={"number": number}
                )
            if len(name) > MAX_LABEL_LENGTH or len(content) > MAX_LABEL_LENGTH:
                raise forms.ValidationError(
                    _("Line %(number)d: names and values have at most %(limit)d characters."),
                    params={"number": number, "limit": MAX_LABEL_LENGTH},
                )
            if name in labels:
                raise forms.ValidationError(
                    _("Line %(number)d repeats the name “%(name)s”."), params={"number": number, "name": name}
                )
            labels[name] = content
        if len(labels) > MAX_LABELS:
            raise forms.ValidationError(
                _("A key has at most %(limit)d labels."), params={"limit": MAX_LABELS}
            )
        return labels

    def validate(self, value: Any) -> None:
        if self.required and not value:
            raise forms.ValidationError(self.error_messages["required"], code="required")

    def run_validators(self, value: Any) -> None:
        """The limits are those of each line, checked above."""

    def prepare_value(self, value: Any) -> Any:
        return (
            "\n".join(f"{name}={content}" for name, content in value.items())
            if isinstance(value, dict)
            else value
        )


class EditKeyForm(forms.Form):
    """Name, labels and allow-list. `access` decides whether the list of models counts."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        help_text=gettext_lazy("What uses it, such as “nightly batch” or “staging”."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    labels = LabelsField(
        label=gettext_lazy("Labels"),
        required=False,
        help_text=gettext_lazy("One name=value a line. They are for your own order, such as team=search."),
        widget=forms.Textarea(attrs={"rows": 2, "class": "mono", "spellcheck": "false"}),
    )
    access = forms.ChoiceField(
        label=gettext_lazy("Allowed models"),
        choices=[
            (ALL_MODELS, gettext_lazy("Every model that the organization has enabled")),
            (LISTED_MODELS, gettext_lazy("Only these")),
        ],
        widget=forms.RadioSelect,
        initial=ALL_MODELS,
    )
    models = forms.MultipleChoiceField(
        label=gettext_lazy("Models"), required=False, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, slugs: Sequence[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.has_models = bool(slugs)
        # Without a model there is nothing to choose from, so it is not asked.
        self.fields["access"].required = self.has_models
        self.fields["models"].choices = [(slug, slug) for slug in slugs]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """`slugs`: None for every enabled model, else the list."""
        values = super().clean() or {}
        ticked: list[str] = values.get("models", [])
        access = values.get("access") or ALL_MODELS
        if access == LISTED_MODELS and not ticked and "models" not in self.errors:
            self.add_error("models", _("Tick at least one model."))
        values["slugs"] = ticked if access == LISTED_MODELS else None
        return values


class NewKeyForm(EditKeyForm):
    """All of it, and how long the key lives."""

    expires = forms.ChoiceField(
        label=gettext_lazy("Expires"),
        initial=NEVER,
        help_text=gettext_lazy("An expired key is refused; it cannot be brought back."),
    )
    expires_on = forms.DateField(
        label=gettext_lazy("Date"),
        required=False,
        help_text=gettext_lazy("The last day that it works, in UTC."),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        input_formats=["%Y-%m-%d"],
    )
    field_order = ("name", "expires", "expires_on", "labels", "access", "models")

    def __init__(self, *args: Any, slugs: Sequence[str], now: datetime, **options: Any) -> None:
        super().__init__(*args, slugs=slugs, **options)
        self._now = now
        self.fields["expires"].choices = [  # type: ignore[attr-defined]
            (NEVER, _("Never")),
            *((str(days), _("In %(days)d days") % {"days": days}) for days in LIFETIMES_DAYS),
            (ON_DATE, _("On a date")),
        ]

    def clean(self) -> dict[str, Any]:
        """`expires_at`: None for never. A date lasts until its end (UTC)."""
        values = super().clean()
        day: date | None = values.get("expires_on")
        choice = values.get("expires") or NEVER
        expires_at: datetime | None = None
        if choice == ON_DATE:
            if day is None:
                if "expires_on" not in self.errors:
                    self.add_error("expires_on", _("Choose the date."))
            elif not self._now.date() <= day <= (self._now + MAX_LIFETIME).date():
                self.add_error("expires_on", _("Choose a date from today on, ten years ahead at most."))
            else:
                expires_at = datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)
        elif choice != NEVER:
            expires_at = self._now + timedelta(days=int(choice))
        values["expires_at"] = expires_at
        return values
