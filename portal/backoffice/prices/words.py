"""What prices' pages call states and mistakes."""

from __future__ import annotations

from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

from models_catalog.pricing.checks import Fault, Problem
from models_catalog.pricing.compare import Increase
from models_catalog.pricing.content import Gap
from models_catalog.pricing.queries import VersionState
from models_catalog.pricing.words import SERVICE_TIERS, TOKEN_CLASSES
from portal.pages.tags import count_text

Text = str | Promise

# The tone of a badge, and the word in it.
STATES: Final[dict[VersionState, tuple[str, Text]]] = {
    VersionState.DRAFT: ("warn", pgettext_lazy("price", "Draft")),
    VersionState.SCHEDULED: ("quiet", pgettext_lazy("price", "Scheduled")),
    VersionState.IN_FORCE: ("ok", pgettext_lazy("price", "In force")),
    VersionState.ENDED: ("quiet", pgettext_lazy("price", "Ended")),
    VersionState.WITHDRAWN: ("quiet", pgettext_lazy("price", "Withdrawn")),
}
FILTERS: Final[dict[str, Text]] = {
    "": pgettext_lazy("prices", "All"),
    "drafts": gettext_lazy("Drafts"),
    "scheduled": pgettext_lazy("prices", "Scheduled"),
    "private": gettext_lazy("Private"),
}
# Some of the names that the database knows; others can be written.
COMMON_ZONES: Final = (
    "UTC",
    "Asia/Shanghai",
    "Asia/Hong_Kong",
    "Asia/Singapore",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Chicago",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "Australia/Sydney",
)
_FAULTS: Final[dict[Fault, Text]] = {
    Fault.UNKNOWN_ZONE: gettext_lazy("Write the name of a time zone, such as Europe/Berlin."),
    Fault.NAME_MISSING: gettext_lazy("Give the time band a name."),
    Fault.NAME_NOT_TEXT: gettext_lazy("A name is one line of at most 64 characters."),
    Fault.NAME_TWICE: gettext_lazy("Another time band has this name."),
    Fault.SPANS_MISSING: gettext_lazy("Say when it is open, such as Mon-Fri 00:30-08:30."),
    Fault.SPANS_OUTSIDE_WEEK: gettext_lazy("Times lie within one week."),
    Fault.CLASS_UNKNOWN: gettext_lazy("Choose what is charged."),
    Fault.TIER_UNKNOWN: gettext_lazy("Choose a service tier."),
    Fault.WINDOW_UNKNOWN: gettext_lazy("Choose a time band of this price, or all times."),
    Fault.PRICE_OUT_OF_RANGE: gettext_lazy("A price is from 0 to 1000 per million."),
    Fault.LENGTH_OUT_OF_RANGE: gettext_lazy("Input lengths go up to 20,000,000 tokens."),
    Fault.LENGTHS_BACKWARD: gettext_lazy("The end is above the beginning."),
    Fault.LINE_TWICE: gettext_lazy(
        "Another line has a price for the same class, tier, time and input length."
    ),
}


def problem_text(problem: Problem) -> str:
    if problem.fault == Fault.SPANS_OVERLAP:
        return _("It is open at the same time as “%(name)s”.") % {"name": problem.other}
    if problem.fault == Fault.TOO_MANY:
        return _("There can be at most %(count)s.") % {"count": problem.other}
    return str(_FAULTS[problem.fault])


def gap_text(gap: Gap) -> str:
    """`Output, Batch: no price for inputs from 32,000 tokens on`."""
    name = str(TOKEN_CLASSES[gap.token_class])
    if gap.service_tier != "standard":
        name = f"{name}, {SERVICE_TIERS[gap.service_tier]}"
    if not gap.from_tokens:
        return _("%(name)s has no price at all times.") % {"name": name}
    return _("%(name)s has no price for inputs from %(count)s tokens on.") % {
        "name": name,
        "count": count_text(gap.from_tokens),
    }


def length_text(low: int, high: int | None) -> str:
    """Of which length inputs are, both bounds inclusive, as calls meet them."""
    if high is not None:
        values = {"low": count_text(low), "high": count_text(high - 1)}
        return _("%(low)s to %(high)s tokens") % values if low else _("Up to %(high)s tokens") % values
    return _("From %(low)s tokens") % {"low": count_text(low)} if low else _("Any length")


def increase_place(increase: Increase) -> str:
    """What gets dearer, in words: class, tier, input length and time."""
    words = [str(TOKEN_CLASSES[increase.token_class])]
    if increase.service_tier != "standard":
        words.append(str(SERVICE_TIERS[increase.service_tier]))
    if increase.from_tokens or increase.to_tokens is not None:
        words.append(length_text(increase.from_tokens, increase.to_tokens))
    if increase.new_window or increase.old_window:
        words.append(increase.new_window or _("at other times"))
    return " · ".join(words)


def organizations_text(count: int) -> str:
    return ngettext("%(count)s organization", "%(count)s organizations", count) % {"count": count_text(count)}
