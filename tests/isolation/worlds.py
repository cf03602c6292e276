"""An organization with one of everything that an address can name, and what it holds in the database."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.tests.doors import admit, settle
from tenants import operations as tenant_operations
from tenants.models import Role
from tenants.scope import role_scope
from tests.database import connected, rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
)
from tests.people import Person, add_member, make_person, unique_address


@dataclass(frozen=True, slots=True)
class World:
    """`ids` holds the public ids that addresses are made of, by the kind of thing (see portal.kit.ids)."""

    tenant: TenantFixture
    owner: Person
    colleague: Person
    model: ModelFixture
    ids: dict[str, str]

    @property
    def private_words(self) -> tuple[str, ...]:
        """What no page of somebody else contains."""
        return (self.owner.email, self.colleague.email, self.tenant.key.token[:20])


def make_world() -> World:
    """An owner, a colleague, a key, an enabled model, credit, a settled call and an open invitation."""
    model, another = make_model(), make_model()
    tenant = make_tenant(granted="1.00", paid="5.00")
    owner, colleague = make_person("owner"), make_person("colleague")
    add_member(tenant, owner, Role.OWNER)
    membership_id = add_member(tenant, colleague, Role.DEVELOPER)
    enable(tenant, model)
    row = admission_row(tenant, model)
    with connected("dataplane") as dataplane:
        admit(dataplane, row)
        settle(dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=5))
    ids = {
        "organization": tenant.public_id,
        "api_key": public_id(PREFIXES["api_key"], tenant.key.id),
        "membership": public_id(PREFIXES["membership"], membership_id),
        "user": public_id(PREFIXES["user"], colleague.id),
        "request": public_id(PREFIXES["request"], row.request_id),
        "transfer": public_id(PREFIXES["transfer"], _some_transfer(tenant.id)),
        "invitation": public_id(PREFIXES["invitation"], _invite(tenant.id, owner.id)),
        "model": model.slug,
        "another_model": another.slug,
    }
    return World(tenant, owner, colleague, model, ids)


def unknown_ids() -> dict[str, str]:
    """Well-spelled ids of things that do not exist."""
    kinds = ("organization", "api_key", "membership", "user", "request", "transfer", "invitation")
    return {kind: public_id(PREFIXES[kind], uuid7()) for kind in kinds} | {
        "model": "nobody/nothing",
        "another_model": "nobody/nothing",
    }


def _some_transfer(tenant_id: UUID) -> UUID:
    found: UUID = rows_of("quotas_ledgerentry", tenant_id=tenant_id)[0]["transfer_id"]
    return found


def _invite(tenant_id: UUID, owner_id: UUID) -> UUID:
    email = unique_address("invited")
    with role_scope("operator"):
        return tenant_operations.invite_member(
            tenant_id=tenant_id,
            email=email,
            role=Role.VIEWER,
            actor_id=owner_id,
            actor_role=Role.OWNER,
            compose=lambda token: tenant_operations.OutgoingMail(email, "Invitation", token, ""),
            # Long enough ago to be sent again.
            now=utc_now() - timedelta(hours=1),
        )


def digest_of(tenant_id: UUID) -> dict[str, str]:
    """A digest of all rows that an organization owns, by table: equal means that nothing was changed."""
    with connected("owner") as owner:
        tables = [
            name
            for (name,) in owner.execute(
                "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
                "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') "
                "AND NOT c.relispartition AND a.attname = 'tenant_id' AND NOT a.attisdropped ORDER BY 1"
            ).fetchall()
        ]
    with ExitStack() as stack:
        # Each table is read by the first role that may read all of it.
        roles = [stack.enter_context(connected(role)) for role in ("operator", "auth", "dataplane")]
        owned = {table: _digest(roles, table, "tenant_id", tenant_id) for table in tables}
        return {**owned, "tenants_tenant": _digest(roles, "tenants_tenant", "id", tenant_id)}


def _digest(roles: list[psycopg.Connection[Any]], table: str, column: str, tenant_id: UUID) -> str:
    query = sql.SQL(
        "SELECT md5(coalesce(string_agg(row::text, '|' ORDER BY row::text), '')) FROM {} row WHERE {} = %s"
    ).format(sql.Identifier(table), sql.Identifier(column))
    for connection in roles:
        try:
            (digest,) = connection.execute(query, (tenant_id,)).fetchone() or ("",)
        except psycopg.errors.InsufficientPrivilege:
            continue
        return str(digest)
    raise AssertionError(f"no role may read all of {table}")
