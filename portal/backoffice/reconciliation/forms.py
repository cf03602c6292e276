"""What operators fill in about discrepancies."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.tenants.forms import reason_field

MAX_TOKENS: Final = 2**31 - 1


def _count(label: Any) -> forms.IntegerField:
    return forms.IntegerField(
        label=label,
        min_value=0,
        max_value=MAX_TOKENS,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )


class CorrectForm(forms.Form):
    """What the whole call used, in tokens. Totals: cached within input, reasoning within output."""

    prompt_tokens = _count(gettext_lazy("Input tokens"))
    cached_tokens = _count(gettext_lazy("Cached input tokens"))
    completion_tokens = _count(gettext_lazy("Output tokens"))
    reasoning_tokens = _count(gettext_lazy("Reasoning tokens"))
    reason = reason_field(
        gettext_lazy("Stands in the audit log; in its statement the organization sees that it was set right.")
    )

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or {}
        for part, whole in (("cached_tokens", "prompt_tokens"), ("reasoning_tokens", "completion_tokens")):
            if part in cleaned and whole in cleaned and cleaned[part] > cleaned[whole]:
                self.add_error(part, _("This is a part of the number above it, so it cannot be more."))
        return cleaned
