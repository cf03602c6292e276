"""What the walks over the API need to know of each operation: of what kind its ids are, and what to send.

The list of operations is the API's own description; one that stands nowhere here fails the walks by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from portal.api.operations import METHODS
from portal.api.schema import document
from portal.backoffice.tests.people import make_operator
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, parse_public_id, public_id, uuid7
from quotas.replay.operations import request_replay
from tenants import operations
from tenants.models import OPERATOR_SCOPES, TENANT_SCOPES, ManagementScope, Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import rows_of
from tests.factories import make_price, unique_name
from tests.isolation.worlds import World, digest_of, make_world, unknown_ids
from tests.people import make_person

# The name of an argument → the key of ApiWorld.ids.
ARGUMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "key": "api_key",
        "limit": "limit",
        "request_id": "request",
        "vendor": "vendor",
        "name": "name",
        "organization": "organization",
        "order": "credit_order",
        "pool": "pool",
        "backend": "backend",
        "deployment": "deployment",
        "price": "price",
        "top_up": "top_up",
    }
)
# Models belong to the catalog, so their names lead everybody to them.
OF_THE_CATALOG: Final = frozenset({"vendor", "name"})

NEXT_MONTH: Final = (utc_now() + timedelta(days=31)).isoformat()
PRICE_LINES: Final = (
    {"token_class": "input", "price_per_million": "0.5"},
    {"token_class": "output", "price_per_million": "2"},
    {"token_class": "output", "window": "night", "price_per_million": "1.25"},
)
NIGHT: Final = {"name": "night", "spans": [{"from_minute": 0, "to_minute": 360}]}

# A body with which the operation succeeds for the organization's owner; None: it takes none. Values in braces
# are ids of the world.
BODIES: Final[Mapping[str, Mapping[str, Any] | None]] = MappingProxyType(
    {
        "createKey": {"name": "another", "labels": {"team": "search"}},
        "changeKey": {"name": "renamed"},
        "rotateKey": None,
        "revokeKey": None,
        "enableModel": None,
        "disableModel": None,
        "setLimit": {"kind": "TOKENS_DAY", "count": 1_000_000},
        "clearLimit": None,
        "suspendTenant": {"reason": "for the test", "cuts_calls": False},
        "resumeTenant": {"reason": "for the test"},
        "orderCredit": {
            "organization": "{organization}",
            "kind": "GRANT",
            "amount": "0.5",
            "reason": "for the test",
        },
        "approveCreditOrder": {"reason": "for the test"},
        "refuseCreditOrder": {"reason": "for the test"},
        "setBackendState": {"state": "DRAINING", "reason": "for the test"},
        "setDeploymentState": {"state": "DRAINING", "reason": "for the test"},
        "createPriceDraft": {"model": "{model}", "currency": "USD", "copy_of": "{price}"},
        "replacePriceDraft": {"time_zone": "UTC", "lines": list(PRICE_LINES), "windows": [NIGHT]},
        "discardPriceDraft": {"reason": "for the test"},
        "publishPrice": {"active_from": NEXT_MONTH, "reason": "for the test"},
        "endPrivatePrice": {"ends_at": NEXT_MONTH, "reason": "for the test"},
        "requestReplay": None,
        "createPool": {
            "code": "{fresh}",
            "name": "Pool",
            "accelerator_kind": "cpu",
            "region": "test",
            "reason": "for the test",
        },
        "changePool": {
            "name": "Another name",
            "accelerator_kind": "cpu",
            "region": "test",
            "reason": "for the test",
        },
        "setPoolCost": {
            "currency": "USD",
            "accelerators": 4,
            "depreciation_per_accelerator_hour": "1.5",
            "power_watts": 3000,
            "pue_thousandths": 1200,
            "energy_per_kwh": "0.1",
            "reason": "for the test",
        },
        "endPoolCost": {"ends_at": NEXT_MONTH, "reason": "for the test"},
        "createBackend": {
            "pool": "{pool}",
            "code": "{fresh}",
            "engine": "vllm",
            "base_url": "http://127.0.0.1:9",
            "max_concurrency": 4,
            "credential": "for-the-test",
            "reason": "for the test",
        },
        "changeBackend": {
            "engine": "vllm",
            "engine_version": "1",
            "base_url": "http://127.0.0.1:9",
            "max_concurrency": 5,
            "reason": "for the test",
        },
        "setBackendCredential": {"credential": "for-the-test", "reason": "for the test"},
        "createDeployment": {
            "backend": "{backend}",
            "model": "{another_model}",
            "upstream_model": "another",
            "reason": "for the test",
        },
        "changeDeployment": {"upstream_model": "renamed", "reason": "for the test"},
        "setCapacity": {
            "reserved_ppm": 400_000,
            "capacity_tokens_per_s": 900,
            "input_weight_thousandths": 250,
            "cached_weight_thousandths": 25,
            "output_weight_thousandths": 1000,
            "reason": "for the test",
        },
    }
)
# Where an argument is of another kind than its name says.
SPECIAL: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "enableModel": {"vendor": "another_vendor", "name": "another_name"},
        "endPrivatePrice": {"price": "private_price"},
    }
)

# Addresses below /api/v1 that are no operations, each with the reason.
NOT_OPERATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "api:openapi-json": "the description itself, for everybody",
        "api:openapi-yaml": "the description itself, for everybody",
        "api:nothing": "answers 404 to whatever is no address",
        "api:root": "answers 404",
        "api:version": "answers 404",
    }
)


@dataclass(frozen=True, slots=True)
class ApiCase:
    """One operation, ready to be tried."""

    id: str
    method: str
    path: str
    arguments: tuple[str, ...]
    permission: str
    scope: str
    is_operators: bool

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    @property
    def is_of_somebody(self) -> bool:
        """Whether its ids name something of an organization."""
        return bool(set(self.arguments) - OF_THE_CATALOG)

    @property
    def kinds(self) -> dict[str, str]:
        special = SPECIAL.get(self.id, {})
        return {name: special.get(name, ARGUMENTS[name]) for name in self.arguments}

    def url(self, ids: Mapping[str, str]) -> str:
        path = self.path
        for argument, kind in self.kinds.items():
            path = path.replace(f"{{{argument}}}", ids[kind])
        return path

    def body(self, ids: Mapping[str, str]) -> dict[str, Any] | None:
        wanted = BODIES.get(self.id)
        if wanted is None:
            return None
        return {
            name: value.format_map(ids) if isinstance(value, str) else value for name, value in wanted.items()
        }


def every_case() -> list[ApiCase]:
    """All of the description."""
    return [
        ApiCase(
            id=found["operationId"],
            method=method.upper(),
            path=path,
            arguments=tuple(one["name"] for one in found.get("parameters", ()) if one["in"] == "path"),
            permission=found["x-permission"] or "",
            scope=found["x-scope"] or "",
            is_operators=path.startswith("/api/v1/operator"),
        )
        for path, methods in document()["paths"].items()
        for method, found in methods.items()
        if method in METHODS
    ]


def has_case(case: ApiCase) -> bool:
    return all(argument in ARGUMENTS for argument in case.arguments) and (
        not case.is_write or case.id in BODIES
    )


@dataclass(frozen=True, slots=True)
class ApiWorld:
    """An organization with one of everything, and the token of a key with all that its owner may."""

    world: World
    ids: dict[str, str]
    token: str

    def token_of(self, role: Role) -> str:
        """A key with this role and every scope, in the owner's name."""
        return _token(self.world, role)


def make_api_world() -> ApiWorld:
    world = make_world()
    vendor, _, name = world.ids["model"].partition("/")
    another_vendor, _, another_name = world.ids["another_model"].partition("/")
    ids = world.ids | {
        "vendor": vendor,
        "name": name,
        "another_vendor": another_vendor,
        "another_name": another_name,
        "private_price": public_id(PREFIXES["price"], make_price(world.model.id, tenant_id=world.tenant.id)),
        "fresh": unique_name("fresh"),
    }
    return ApiWorld(world, ids, _token(world, Role.OWNER))


@cache
def operator_token(scopes: tuple[ManagementScope, ...] = OPERATOR_SCOPES) -> str:
    """A key of an operator with a second factor."""
    assert settings.SECRET_STORE is not None
    maker = make_operator().person
    with role_scope("operator"), transaction.atomic(using="operator"):
        return operations.create_operator_key(
            name="for the test",
            scopes=scopes,
            expires_at=utc_now() + timedelta(days=1),
            actor=audit.operator(maker.id),
            reason="for the test",
            secrets=settings.SECRET_STORE,
            now=utc_now(),
        ).token


def prepare(case: ApiCase, world: ApiWorld) -> None:
    """What has to be so before the operation can succeed."""
    if case.id == "resumeTenant":
        with role_scope("operator"):
            operations.suspend_tenant(
                tenant_id=world.world.tenant.id,
                reason="for the test",
                cuts_calls=False,
                actor=audit.operator(make_person("suspender", is_staff=True).id),
                now=utc_now(),
            )
    if case.id in ("getReplay", "listReplayEffects"):
        with role_scope("operator"):
            request_replay(
                version_id=parse_public_id(PREFIXES["price"], world.ids["price"]),
                actor=audit.operator(make_person("asker", is_staff=True).id),
                now=utc_now(),
            )


def digest_around(world: ApiWorld) -> dict[str, str]:
    """A digest of all that the world's organization owns, of what its model runs on and of its prices."""
    model, pool_id = world.world.model, parse_public_id(PREFIXES["pool"], world.ids["pool"])
    price_id = parse_public_id(PREFIXES["price"], world.ids["price"])
    around = [
        # The owner sees credentials, and that they change.
        rows_of("models_catalog_servingbackend", role="owner", pool_id=pool_id),
        rows_of("models_catalog_servingpool", id=pool_id),
        rows_of("models_catalog_servingpool", code=world.ids["fresh"]),
        rows_of("models_catalog_poolcostversion", pool_id=pool_id),
        rows_of("models_catalog_deployment", backend_id=model.backend_id),
        rows_of("models_catalog_capacityversion", deployment_id=model.deployment_id),
        rows_of("models_catalog_priceversion", model_id=model.id),
        rows_of("models_catalog_priceline", version_id=price_id),
        rows_of("quotas_pricereplay", version_id=price_id),
    ]
    found = [sorted(map(str, rows)) for rows in around]
    return {**digest_of(world.world.tenant.id), "fleet and prices": str(found)}


def nothing_known() -> dict[str, str]:
    """Well-spelled ids of things that do not exist."""
    return unknown_ids() | {
        **{kind: public_id(PREFIXES[kind], uuid7()) for kind in ("pool", "backend", "deployment", "price")},
        "private_price": public_id(PREFIXES["price"], uuid7()),
        "vendor": "nobody",
        "name": "nothing",
        "another_vendor": "nobody",
        "another_name": "nothing",
    }


def _token(world: World, role: Role) -> str:
    assert settings.SECRET_STORE is not None
    with tenant_scope(world.tenant.id):
        return operations.create_management_key(
            tenant_id=world.tenant.id,
            name=f"all of {role}",
            role=role,
            scopes=TENANT_SCOPES,
            expires_at=None,
            actor=audit.member(world.owner.id, Role.OWNER),
            secrets=settings.SECRET_STORE,
            now=utc_now(),
        ).token
