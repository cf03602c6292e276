"""Who looks at a public page, as far as it matters: in which currency, and for which organization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import get_language

from portal.pages.access import LAST_ORGANIZATION, Organization, organizations_of

CURRENCIES_OF_LANGUAGES: Final = {"zh": "CNY"}


@dataclass(frozen=True, slots=True)
class Visitor:
    """currency: what prices are shown in; chosen_currency: what the address asks for, empty when it does not.

    organizations: all that the person is a member of; present: the one used last, or the first.
    """

    currency: str
    chosen_currency: str
    organizations: tuple[Organization, ...]
    present: Organization | None


def visitor_of(request: HttpRequest) -> Visitor:
    """The address decides on the currency, then the organization, which pays in one, then the language."""
    organizations: tuple[Organization, ...] = ()
    present = None
    if request.user.is_authenticated:
        organizations = tuple(organizations_of(request.user.id))
        last = request.session.get(LAST_ORGANIZATION)
        present = next((one for one in organizations if one.public_id == last), None)
        present = present or (organizations[0] if organizations else None)
    chosen = request.GET.get("currency", "")
    chosen = chosen if chosen in settings.CURRENCIES else ""
    return Visitor(chosen or _default_currency(present), chosen, organizations, present)


def _default_currency(present: Organization | None) -> str:
    if present is not None and present.currency in settings.CURRENCIES:
        return present.currency
    language = (get_language() or "").partition("-")[0]
    wanted = CURRENCIES_OF_LANGUAGES.get(language, "")
    return wanted if wanted in settings.CURRENCIES else str(settings.CURRENCIES[0])
