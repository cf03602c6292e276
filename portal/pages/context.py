"""What every page knows: the theme, the person's organizations, and the balance of the present one."""

from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from portal.pages.access import Organization, organizations_of
from quotas.ledger.queries import wallet_balance
from tenants.scope import tenant_scope

THEMES: Final = ("light", "dark")
THEME_COOKIE: Final = "theme"


def page(request: HttpRequest) -> dict[str, Any]:
    """Context of every template. What asks the database does so only when a template uses it."""
    theme = request.COOKIES.get(THEME_COOKIE, "")
    organization: Organization | None = getattr(request, "organization", None)
    user = getattr(request, "user", None)
    context: dict[str, Any] = {
        "theme": theme if theme in THEMES else "",
        "request_id": request.META.get("SLUICE_REQUEST_ID", ""),
        "organization": organization,
        "organizations": (),
        "has_mailbox": getattr(settings, "MAILBOX", False),
        "api_base": settings.API_BASE,
    }
    if user is not None and user.is_authenticated:
        context["organizations"] = SimpleLazyObject(lambda: organizations_of(user.id))
    if organization is not None:
        context["wallet"] = SimpleLazyObject(lambda: _wallet(organization))
    return context


def _wallet(organization: Organization) -> Any:
    with tenant_scope(organization.tenant_id):
        return wallet_balance(tenant_id=organization.tenant_id)
