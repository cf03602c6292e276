"""What operators and mails call token classes and service tiers."""

from __future__ import annotations

from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy, pgettext_lazy

TOKEN_CLASSES: Final[dict[str, str | Promise]] = {
    "input": gettext_lazy("Input"),
    "cached_input": gettext_lazy("Cached input"),
    "image": gettext_lazy("Images"),
    "output": gettext_lazy("Output"),
    "reasoning": gettext_lazy("Reasoning"),
    "request": gettext_lazy("Request"),
}
SERVICE_TIERS: Final[dict[str, str | Promise]] = {
    "standard": pgettext_lazy("service tier", "Standard"),
    "batch": pgettext_lazy("service tier", "Batch"),
    "reserved": pgettext_lazy("service tier", "Reserved"),
}
