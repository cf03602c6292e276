"""What the walk over all addresses needs to know of each: of what kind an argument is, and what to post.

A route that takes an argument and stands neither here nor under one of these names fails the walk by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from portal.kit.ids import PREFIXES, public_id, uuid7
from tests.isolation.worlds import World
from tests.routes import Route

# The name of an argument → the kind of id (the keys of World.ids).
ARGUMENT_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "organization": "organization",
        "key": "api_key",
        "member": "membership",
        "invitation": "invitation",
        "request_id": "request",
        "transaction": "transfer",
        "slug": "model",
        "pool": "pool",
        "backend": "backend",
        "deployment": "deployment",
        "limit": "limit",
        "tier": "tier",
        "price": "price",
        "order": "credit_order",
        "management_key": "management_key",
        "operator_key": "operator_key",
        "section": "section",
        "top_up": "top_up",
        "refund": "refund",
        "dispute": "dispute",
        "operation": "stripe_operation",
        "event": "event",
        "monthly_invoice": "monthly_invoice",
        "bank_receipt": "bank_receipt",
        "invoice": "invoice",
        "document": "invoice_document",
        "bundle": "bundle",
        "discrepancy": "discrepancy",
        "suspense_item": "suspense",
        "feed": "feed",
        "feed_line": "feed_line",
    }
)

# The form that makes an action succeed for the organization's owner, by the name of the route; values in
# braces are ids of the world. Routes that act without a form (and pages) need no entry.
FORMS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "console:key-new": {"name": "new", "expires": "never", "access": "all"},
        "console:key-edit": {"name": "another name", "access": "all"},
        "console:key-revoke": {"confirm": "test"},
        "console:management-key-new": {
            "name": "new",
            "role": "VIEWER",
            "expires": "30",
            "scopes": "usage:read",
        },
        "console:invite": {"email": "somebody@invited.example", "role": "VIEWER"},
        "console:member-role": {"role": "VIEWER"},
        "console:limit-new": {"kind": "TOKENS_MONTH", "value": "1000000"},
        "console:limit-change": {"value": "2000000"},
        "console:settings": {"name": "Another name"},
        "console:invoice-profile": {"legal_name": "Another Ltd.", "tax_id": "DE987654321"},
        "console:invoice-request": {"until": "now"},
        "console:add-credit": {"amount": "20"},
        "console:bundle-make": {"from": "2026-01-01", "to": "2026-01-31"},
        "console:recharge-set": {"threshold_nanos": "7", "amount_nanos": "30", "monthly_cap_nanos": "90"},
    }
)

# Where an argument is not of the kind that its name says.
KINDS_OF_ROUTES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {"console:model-enable": {"slug": "another_model"}}
)

# Actions that ask Stripe. No key of it is configured here, so their answer says that, and nothing changes:
# portal/console/tests and tests/journeys/test_top_up.py try them where there is one.
ASK_STRIPE: Final = frozenset(
    {
        "console:add-credit",
        "console:payment-methods",
        "console:top-up-cancel",
        "console:recharge-method",
        "console:recharge-confirm",
    }
)
WITHOUT_STRIPE: Final = (200, 302, 422)

# Actions that the only owner cannot take, though the role may: they are taken by the other member.
BY_THE_COLLEAGUE: Final = frozenset({"console:leave"})

# Routes with arguments that name nothing of an organization, each with the reason.
PUBLIC: Final[Mapping[str, str]] = MappingProxyType(
    {
        "storefront:model": "the catalog is public; it is found by its slug",
        "account_confirm_email": "whoever has the signed key of the mail has the address",
        "account_reset_password_from_key": "whoever has the signed key of the mail has the address",
        "mfa_remove_webauthn": "a person's second factor, tried by tests/isolation/test_second_factors.py",
        "mfa_edit_webauthn": "a person's second factor, tried by tests/isolation/test_second_factors.py",
        "api:docs-section": "made of the API's own description",
        "openid_connect_login": "the name of a provider that the installation configures",
        "openid_connect_callback": "the name of a provider that the installation configures",
        "accounts:invitation": "whoever has the token of the mail may read it; accepting needs the address",
        "accounts:mail": "development only, as the mailbox",
        "ingest:cloudevents": "whoever has the feed's credential; tried by portal/ingest/tests",
        "ingest:ndjson": "whoever has the feed's credential; tried by portal/ingest/tests",
        "ingest:csv": "whoever has the feed's credential; tried by portal/ingest/tests",
    }
)

OPERATORS: Final = ("admin/", "operator/")
# Walked by test_api_routes.py: programs have keys, not sessions.
PROGRAMS: Final = ("api/",)

# Texts that are no id of anything, percent-encoded as an address holds them.
MALFORMED: Final = (
    "nothing",
    "org_",
    "org_00000000000000000000000000",
    "ORG_7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
    "key_7zzzzzzzzzzzzzzzzzzzzzzzzzz",
    "01890a5d-ac96-774b-bcce-b302099a8057",
    "%00",
    "%F0%9F%92%A7",
    "..%2E",
    "'%20OR%201=1--",
    "x" * 300,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One route with ids, ready to be tried."""

    route: Route

    @property
    def kinds(self) -> dict[str, str]:
        special = KINDS_OF_ROUTES.get(self.route.name, {})
        return {name: special.get(name, ARGUMENT_KINDS[name]) for name in self.route.arguments}

    @property
    def methods(self) -> frozenset[str]:
        return self.route.methods or frozenset({"GET", "HEAD", "POST"})

    def url(self, ids: Mapping[str, str]) -> str:
        return self.route.url({argument: ids[kind] for argument, kind in self.kinds.items()})

    def form(self, world: World) -> dict[str, str]:
        wanted = FORMS.get(self.route.name, {})
        return {field: value.format_map(world.ids) for field, value in wanted.items()}


def operators_url(route: Route, world: World) -> str:
    """An address of operators: with what is in this world, else with well-spelled ids of nothing."""
    values = {
        "object_id": str(world.tenant.id),
        "app_label": "tenants",
        "content_type_id": "1",
        "url": "nothing-there",
        "id": str(world.owner.id),
    }
    for argument in route.arguments:
        kind = ARGUMENT_KINDS.get(argument, argument)
        if kind in world.ids:
            values[argument] = world.ids[kind]
        else:
            values.setdefault(argument, public_id(PREFIXES.get(kind, "org"), uuid7()))
    return route.url(values)


def is_for_operators(route: Route) -> bool:
    return route.pattern.startswith(OPERATORS)


def is_for_programs(route: Route) -> bool:
    return route.pattern.startswith(PROGRAMS)


def has_case(route: Route) -> bool:
    return all(argument in ARGUMENT_KINDS for argument in route.arguments)
