"""What tests of the API begin with: an organization in which something happened, and keys to ask about it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.test import Client

from portal.kit.clock import utc_now
from tenants import operations
from tenants.models import TENANT_SCOPES, ManagementScope, Role
from tenants.operations import IssuedManagementKey, audit
from tenants.scope import tenant_scope
from tests.factories import TenantFixture, make_tenant
from tests.people import Person, make_member


def make_management_key(
    tenant: TenantFixture,
    maker: Person,
    *,
    maker_role: Role = Role.OWNER,
    role: Role = Role.OWNER,
    scopes: Collection[ManagementScope] = TENANT_SCOPES,
    expires_at: datetime | None = None,
    now: datetime | None = None,
) -> IssuedManagementKey:
    """A key of an organization, in the name of one of its members."""
    assert settings.SECRET_STORE is not None
    with tenant_scope(tenant.id):
        return operations.create_management_key(
            tenant_id=tenant.id,
            name="for the test",
            role=role,
            scopes=scopes,
            expires_at=expires_at,
            actor=audit.member(maker.id, maker_role),
            secrets=settings.SECRET_STORE,
            now=now or utc_now(),
        )


@dataclass(frozen=True, slots=True)
class Program:
    """Something that calls the API with one key."""

    token: str
    client: Client

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        if body is None:
            return self.client.generic(method, f"/api/v1{path}", headers=sent)
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.generic(
            method, f"/api/v1{path}", text, content_type="application/json", headers=sent
        )

    def get(self, path: str, **options: Any) -> Any:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.call("POST", path, body, **options)


def program(token: str, *, raises: bool = True) -> Program:
    return Program(token, Client(raise_request_exception=raises))


@dataclass(frozen=True, slots=True)
class Stage:
    """An organization with its owner, and a program with a key that may everything the owner may."""

    tenant: TenantFixture
    owner: Person
    key: IssuedManagementKey
    program: Program

    def with_key(self, **options: Any) -> Program:
        """A further program; options as of make_management_key."""
        return program(make_management_key(self.tenant, self.owner, **options).token)


def open_stage(*, raises: bool = True) -> Stage:
    tenant = make_tenant(granted="2.00", paid="5.00")
    owner = make_member(tenant, Role.OWNER)
    key = make_management_key(tenant, owner)
    return Stage(tenant, owner, key, program(key.token, raises=raises))


def problem_of(answer: Any, status: int, code: str) -> Mapping[str, Any]:
    """The problem details of an answer, which has this status and code and the form that all have."""
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json"), (
        answer.content
    )
    body: Mapping[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert {"type", "title", "detail", "instance"} <= set(body)
    assert body["request_id"] == answer["X-Request-Id"]
    assert body["type"].endswith(f"/docs/api#problem-{code}")
    assert answer["Cache-Control"] == "no-store"
    return body
