"""Which pages are looked at, and as whom. Addresses come from the URLconf; a new one needs an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tests.routes import Route, every_route


class Visitor(StrEnum):
    """Who looks at a page."""

    NOBODY = "nobody"  # not signed in
    OWNER = "owner"  # of an organization with one of everything
    PROVEN = "proven"  # the same, who has just given the password again
    OPERATOR = "operator"  # staff with a second factor


# Pages of an organization need no entry: its owner looks at them.
VISITORS: Final[Mapping[str, Visitor]] = MappingProxyType(
    {
        "storefront:landing": Visitor.NOBODY,
        "storefront:catalog": Visitor.NOBODY,
        "storefront:model": Visitor.NOBODY,
        "storefront:styleguide": Visitor.NOBODY,
        "accounts:terms": Visitor.NOBODY,
        "accounts:privacy": Visitor.NOBODY,
        "accounts:mailbox": Visitor.NOBODY,
        "accounts:settings": Visitor.OWNER,
        "account_signup": Visitor.NOBODY,
        "account_login": Visitor.NOBODY,
        "account_logout": Visitor.OWNER,
        "account_inactive": Visitor.NOBODY,
        "account_reauthenticate": Visitor.OWNER,
        "account_email": Visitor.PROVEN,
        "account_email_verification_sent": Visitor.NOBODY,
        "account_change_password": Visitor.PROVEN,
        "account_reset_password": Visitor.NOBODY,
        "account_reset_password_done": Visitor.NOBODY,
        "account_reset_password_from_key_done": Visitor.NOBODY,
        "mfa_index": Visitor.PROVEN,
        "mfa_activate_totp": Visitor.PROVEN,
        "mfa_list_webauthn": Visitor.PROVEN,
        "mfa_add_webauthn": Visitor.PROVEN,
        "mfa_deactivate_totp": Visitor.OPERATOR,
        "mfa_generate_recovery_codes": Visitor.OPERATOR,
        "mfa_reauthenticate": Visitor.OPERATOR,
        "usersessions_list": Visitor.OWNER,
        "socialaccount_connections": Visitor.PROVEN,
        "socialaccount_login_cancelled": Visitor.NOBODY,
        "console:new": Visitor.OWNER,
        "backoffice:witness": Visitor.OPERATOR,
        "backoffice:home": Visitor.OPERATOR,
        "backoffice:elevated": Visitor.OPERATOR,
        "backoffice:tenants": Visitor.OPERATOR,
        "backoffice:tenant": Visitor.OPERATOR,
        "backoffice:tenant-requests": Visitor.OPERATOR,
        "backoffice:tenant-request": Visitor.OPERATOR,
        "backoffice:tenant-suspend": Visitor.OPERATOR,
        "backoffice:tenant-resume": Visitor.OPERATOR,
        "backoffice:tenant-note": Visitor.OPERATOR,
        "backoffice:tenant-credit": Visitor.OPERATOR,
        "backoffice:tenant-key-revoke": Visitor.OPERATOR,
        "backoffice:approvals": Visitor.OPERATOR,
        "backoffice:order-approve": Visitor.OPERATOR,
        "backoffice:order-refuse": Visitor.OPERATOR,
        "backoffice:order-withdraw": Visitor.OPERATOR,
        "backoffice:audit": Visitor.OPERATOR,
        "backoffice:fleet": Visitor.OPERATOR,
        "backoffice:pool-new": Visitor.OPERATOR,
        "backoffice:pool": Visitor.OPERATOR,
        "backoffice:pool-edit": Visitor.OPERATOR,
        "backoffice:pool-cost": Visitor.OPERATOR,
        "backoffice:pool-cost-end": Visitor.OPERATOR,
        "backoffice:backend-new": Visitor.OPERATOR,
        "backoffice:backend": Visitor.OPERATOR,
        "backoffice:backend-edit": Visitor.OPERATOR,
        "backoffice:backend-credential": Visitor.OPERATOR,
        "backoffice:deployment-new": Visitor.OPERATOR,
        "backoffice:deployment": Visitor.OPERATOR,
        "backoffice:deployment-edit": Visitor.OPERATOR,
        "backoffice:deployment-capacity": Visitor.OPERATOR,
        "backoffice:deployment-abilities": Visitor.OPERATOR,
        "backoffice:business": Visitor.OPERATOR,
        "backoffice:floor": Visitor.OPERATOR,
        "backoffice:prices": Visitor.OPERATOR,
        "backoffice:price-new": Visitor.OPERATOR,
        "backoffice:price": Visitor.OPERATOR,
        "backoffice:price-edit": Visitor.OPERATOR,
        "backoffice:price-discard": Visitor.OPERATOR,
        "backoffice:price-publish": Visitor.OPERATOR,
        "backoffice:tiers": Visitor.OPERATOR,
        "backoffice:tier-new": Visitor.OPERATOR,
        "backoffice:tier": Visitor.OPERATOR,
        "backoffice:tier-delete": Visitor.OPERATOR,
        "backoffice:tenant-limits": Visitor.OPERATOR,
        "backoffice:tenant-limit-new": Visitor.OPERATOR,
        "backoffice:tenant-limit-clear": Visitor.OPERATOR,
        "backoffice:tenant-tier": Visitor.OPERATOR,
        "backoffice:tenant-tier-end": Visitor.OPERATOR,
        "backoffice:payments": Visitor.OPERATOR,
        "backoffice:top-ups": Visitor.OPERATOR,
        "backoffice:top-up": Visitor.OPERATOR,
        "backoffice:top-up-refund": Visitor.OPERATOR,
        "backoffice:refunds": Visitor.OPERATOR,
        "backoffice:disputes": Visitor.OPERATOR,
        "backoffice:dispute": Visitor.OPERATOR,
        "backoffice:receivables": Visitor.OPERATOR,
        "backoffice:stripe-events": Visitor.OPERATOR,
        "backoffice:stripe-events-replay": Visitor.OPERATOR,
        "backoffice:stripe-event": Visitor.OPERATOR,
        "backoffice:stripe-event-replay": Visitor.OPERATOR,
        "backoffice:stripe-operations": Visitor.OPERATOR,
        "backoffice:stripe-operation-send": Visitor.OPERATOR,
        "backoffice:stripe-days": Visitor.OPERATOR,
        "backoffice:postpaid": Visitor.OPERATOR,
        "backoffice:postpaid-agree": Visitor.OPERATOR,
        "backoffice:postpaid-end": Visitor.OPERATOR,
        "backoffice:postpaid-invoice": Visitor.OPERATOR,
        "backoffice:postpaid-credit-note": Visitor.OPERATOR,
        "backoffice:operator-keys": Visitor.OPERATOR,
        "backoffice:operator-key-new": Visitor.OPERATOR,
        "backoffice:operator-key-revoke": Visitor.OPERATOR,
        "backoffice:reconciliation": Visitor.OPERATOR,
        "backoffice:reconciliation-day": Visitor.OPERATOR,
        "backoffice:discrepancies": Visitor.OPERATOR,
        "backoffice:discrepancy": Visitor.OPERATOR,
        "backoffice:discrepancy-accept": Visitor.OPERATOR,
        "backoffice:discrepancy-waive": Visitor.OPERATOR,
        "backoffice:discrepancy-approve": Visitor.OPERATOR,
        "backoffice:discrepancy-correct": Visitor.OPERATOR,
        "backoffice:suspense": Visitor.OPERATOR,
        "backoffice:suspense-explain": Visitor.OPERATOR,
        "backoffice:suspense-write-off": Visitor.OPERATOR,
        "backoffice:feeds": Visitor.OPERATOR,
        "backoffice:feed": Visitor.OPERATOR,
        "backoffice:feed-switch": Visitor.OPERATOR,
        "backoffice:feed-credential": Visitor.OPERATOR,
        "backoffice:feed-line-retry": Visitor.OPERATOR,
        "backoffice:feed-line-dismiss": Visitor.OPERATOR,
        "backoffice:bank": Visitor.OPERATOR,
        "backoffice:books": Visitor.OPERATOR,
        "backoffice:books-entries": Visitor.OPERATOR,
        "backoffice:books-close": Visitor.OPERATOR,
        "backoffice:receipt-record": Visitor.OPERATOR,
        "backoffice:receipt-approve": Visitor.OPERATOR,
        "backoffice:receipt-refuse": Visitor.OPERATOR,
        "backoffice:receipt-withdraw": Visitor.OPERATOR,
        "backoffice:bank-invoices": Visitor.OPERATOR,
        "backoffice:profile-verify": Visitor.OPERATOR,
        "backoffice:profile-refuse": Visitor.OPERATOR,
        "backoffice:invoice-issue": Visitor.OPERATOR,
        "backoffice:invoice-refuse": Visitor.OPERATOR,
        "backoffice:invoice-credit": Visitor.OPERATOR,
        "api:docs": Visitor.NOBODY,
        "api:docs-section": Visitor.NOBODY,
    }
)

# Pages that speak English whatever the language, each with the reason.
IN_ENGLISH: Final[Mapping[str, str]] = MappingProxyType(
    {
        "storefront:styleguide": "for developers only",
        "api:docs": "made of the API's own description, which is in English as its answers are",
        "api:docs-section": "made of the API's own description, which is in English as its answers are",
    }
)

# What is no page of its own, each with the reason.
NOT_PAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "healthz": "for machines",
        "readyz": "for machines",
        "metrics": "for machines",
        "storefront:robots": "for machines",
        "storefront:bundle-keys": "for machines",
        "storefront:verify-bundle": "a file",
        "storefront:language": "answers POST with a redirect",
        "storefront:theme": "answers POST with a redirect",
        "accounts:accept_terms": "shown only when the terms have changed; leads on otherwise",
        "accounts:invitation": "needs the token of a mail; walked by test_members.py",
        "accounts:mail": "needs a mail; walked by test_first_customer.py",
        "account_confirm_email": "needs the key of a mail; walked by test_first_customer.py",
        "account_reset_password_from_key": "needs the key of a mail",
        "account_set_password": "for people without a password; leads on otherwise",
        "account_confirm_login_code": "sign-in by code is off",
        "mfa_authenticate": "in the middle of a sign-in",
        "mfa_reauthenticate_webauthn": "needs a passkey of the person",
        "mfa_view_recovery_codes": "needs recovery codes of the person",
        "mfa_download_recovery_codes": "a file",
        "mfa_remove_webauthn": "needs a passkey of the person",
        "mfa_edit_webauthn": "needs a passkey of the person",
        "mfa_login_webauthn": "answers JSON",
        "socialaccount_signup": "in the middle of a sign-up with a provider",
        "socialaccount_login_error": "answers 401",
        "github_login": "leads to the provider",
        "github_callback": "the provider leads to it",
        "google_login": "leads to the provider",
        "google_callback": "the provider leads to it",
        "google_login_by_token": "the provider leads to it",
        "openid_connect_login": "leads to the provider",
        "openid_connect_callback": "the provider leads to it",
        "console:chooser": "leads to the only organization",
        "console:overview-live": "a fragment",
        "console:checklist": "a fragment",
        "console:usage-csv": "a file",
        "console:requests-csv": "a file",
        "console:statement-csv": "a file",
        "console:statement-pdf": "a file",
        "console:top-up-state": "a fragment",
        "console:invoice-document": "a file",
        "console:bundle-file": "a file",
        "backoffice:invoice-document": "a file",
        "backoffice:audit-csv": "a file",
        "backoffice:discrepancies-csv": "a file",
        "backoffice:discrepancies-decide": "needs rows that are chosen; tried by portal/backoffice/tests",
        "backoffice:welcome-approve": "needs a held welcome credit; tried by portal/backoffice/tests",
        "backoffice:welcome-refuse": "needs a held welcome credit; tried by portal/backoffice/tests",
        "backoffice:backend-state": "needs the state that is wanted; tried by backoffice/tests",
        "backoffice:deployment-state": "needs the state that is wanted; tried by backoffice/tests",
        "backoffice:business-csv": "a file",
        "backoffice:books-journal": "a file",
        "backoffice:price-what-if": "a fragment; leads to the page of its price otherwise",
        "backoffice:price-what-if-csv": "a file",
        "backoffice:price-end": "needs a private price; tried by backoffice/prices/tests",
        "backoffice:tenant-limit-change": "needs a limit of operators; tried by backoffice/tiers/tests",
    }
)

# Pages that are also walked with the keyboard: those that people work in, one of each layout.
BY_KEYBOARD: Final = frozenset(
    {
        "storefront:landing",
        "storefront:catalog",
        "account_signup",
        "console:overview",
        "console:keys",
        "console:key-new",
        "console:models",
        "console:usage",
        "console:billing",
        "console:recharge",
        "console:statement",
        "console:members",
        "console:limits",
        "playground:page",
        "backoffice:reconciliation",
        "backoffice:discrepancies",
        "backoffice:witness",
        "backoffice:prices",
        "backoffice:price-edit",
        "backoffice:backend",
    }
)


def visitor_of(route: Route) -> Visitor | None:
    """Who looks at the page; None when nobody says."""
    if route.name in VISITORS:
        return VISITORS[route.name]
    return Visitor.OWNER if route.permission is not None else None


def is_page(route: Route) -> bool:
    if route.name in NOT_PAGES or route.pattern.startswith(("admin/", "accounts/social/", "api/")):
        # The admin's pages are Django's own; portal/backoffice/tests looks at them. The API shows none.
        return False
    return route.methods is None or "GET" in route.methods


def every_page() -> list[Route]:
    """Every page once, also those whose address an own view has taken over from a library."""
    return list({route.name: route for route in every_route() if is_page(route)}.values())
