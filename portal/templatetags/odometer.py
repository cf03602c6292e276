"""The balance as a water meter shows it: drums of a fixed number, decimals in the other colour."""

from dataclasses import dataclass
from typing import Final

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from portal.kit.money import CURRENCY_SYMBOLS, format_nanos
from portal.pages.tags import MINUS, NONE, count_text

register = template.Library()

WHOLE_DRUMS: Final = 4
"""At least so many digits before the point, so that the width stays while money flows."""
FRACTION_DRUMS: Final = 4
"""Digits after the point; a smaller amount than they can show gets as many as it needs."""


@dataclass(frozen=True, slots=True)
class Drums:
    """What stands on the drums. `leading` zeros only keep the width; digits are text."""

    owed: bool
    leading: str
    whole: str
    fraction: str


def drums_of(amount_nanos: int) -> Drums:
    """The drums of an amount in nano-units: cut towards zero, never rounded up; a small one never reads 0."""
    units, rest_nanos = divmod(abs(amount_nanos), 10**9)
    decimals = f"{rest_nanos:09d}"
    # An amount below the last drum would read as nothing.
    shown = decimals[:FRACTION_DRUMS] if units or int(decimals[:FRACTION_DRUMS]) else decimals.rstrip("0")
    whole = str(units)
    return Drums(
        amount_nanos < 0,
        "0" * max(0, WHOLE_DRUMS - len(whole)),
        whole,
        shown.ljust(FRACTION_DRUMS, "0"),
    )


@register.simple_tag
def odometer(amount_nanos: int | None, currency: str, key: str, size: str = "") -> SafeString | str:
    """An amount on drums. key: names the meter, so that a script rolls what changed. size: "" or "large".

    People who listen hear the exact amount; it is in `title`, too.
    """
    if amount_nanos is None:
        return NONE
    drums = drums_of(amount_nanos)
    exact = format_nanos(amount_nanos, currency).replace("-", MINUS)
    title = _("%(exact)s, exactly %(amount)s nano-units") % {
        "exact": exact,
        "amount": count_text(amount_nanos),
    }
    return format_html(
        '<data class="odometer{}{}" value="{}" title="{}" data-odometer="{}">'
        '<span class="visually-hidden">{}</span>'
        '<span class="odometer-unit" aria-hidden="true">{}{}</span>'
        '<span class="odometer-drums" aria-hidden="true">{}{}<span class="odometer-point">.</span>{}'
        "</span></data>",
        " odometer-owed" if drums.owed else "",
        " odometer-large" if size == "large" else "",
        amount_nanos,
        title,
        key,
        exact,
        MINUS if drums.owed else "",
        CURRENCY_SYMBOLS.get(currency, currency),
        _drums(drums.leading, "odometer-drum odometer-lead"),
        _drums(drums.whole, "odometer-drum"),
        _drums(drums.fraction, "odometer-drum odometer-fraction"),
    )


def _drums(digits: str, names: str) -> SafeString:
    return format_html_join(
        "", '<span class="{}"><span>{}</span></span>', ((names, digit) for digit in digits)
    )
