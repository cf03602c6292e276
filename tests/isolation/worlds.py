"""An organization with one of everything that an address can name, and what it holds in the database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings
from psycopg import sql

from models_catalog.fleet import operations as fleet_operations
from models_catalog.fleet.operations import CapacityEntry, CostEntry
from models_catalog.models import ServingBackend
from models_catalog.pricing import drafts as price_drafts
from models_catalog.pricing import queries as price_queries
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.credit import operations as credit_operations
from quotas.credit.policy import CreditPolicy
from quotas.limits import operations as limit_operations
from quotas.limits.tests.stage import make_tier
from quotas.models import CreditOrderKind, LimitKind, LimitOrigin
from quotas.tests.doors import admit, settle
from tenants import operations as tenant_operations
from tenants.models import ManagementScope, Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
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
from tests.factories_bank import make_every_bank_row
from tests.factories_bundles import make_ready_bundle
from tests.factories_payments import make_event, make_every_payment
from tests.factories_postpaid import make_every_postpaid
from tests.factories_reconciliation import make_every_reconciliation
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
        "credit_order": public_id(PREFIXES["credit_order"], _order(tenant.id)),
        "membership": public_id(PREFIXES["membership"], membership_id),
        "user": public_id(PREFIXES["user"], colleague.id),
        "request": public_id(PREFIXES["request"], row.request_id),
        "transfer": public_id(PREFIXES["transfer"], _some_transfer(tenant.id)),
        "invitation": public_id(PREFIXES["invitation"], _invite(tenant.id, owner.id)),
        "model": model.slug,
        "another_model": another.slug,
        **_fleet_of(model),
        "limit": public_id(PREFIXES["limit"], _limit(tenant.id, owner.id)),
        "tier": _any_tier(),
        "management_key": public_id(PREFIXES["management_key"], _management_key(tenant.id, owner.id)),
        "operator_key": _any_operator_key(),
        # Of the API's reference, which is everybody's.
        "section": "keys",
        "price": public_id(PREFIXES["price"], _draft(model.id, owner.id)),
        **{kind: public_id(PREFIXES[kind], row_id) for kind, row_id in make_every_payment(tenant).items()},
        "event": make_event(),
        **_reconciled(tenant, model),
        "bundle": public_id(PREFIXES["bundle"], make_ready_bundle(tenant)),
        **{kind: public_id(PREFIXES[kind], row_id) for kind, row_id in make_every_postpaid(tenant).items()},
        **{kind: public_id(PREFIXES[kind], row_id) for kind, row_id in _bank_rows(tenant, owner).items()},
    }
    return World(tenant, owner, colleague, model, ids)


def unknown_ids() -> dict[str, str]:
    """Well-spelled ids of things that do not exist."""
    kinds = (
        "organization",
        "api_key",
        "membership",
        "user",
        "request",
        "transfer",
        "invitation",
        "limit",
        "management_key",
        "credit_order",
        "top_up",
        "refund",
        "dispute",
        "stripe_operation",
        "bank_receipt",
        "invoice",
        "invoice_document",
        "monthly_invoice",
        "bundle",
    )
    return {kind: public_id(PREFIXES[kind], uuid7()) for kind in kinds} | {
        "model": "nobody/nothing",
        "another_model": "nobody/nothing",
    }


def _reconciled(tenant: TenantFixture, model: ModelFixture) -> dict[str, str]:
    """What the backend says of its calls, and where that is not what was metered."""
    made = make_every_reconciliation(tenant, model)
    rows = {
        "discrepancy": made.waiting_id,
        "suspense": made.suspense_id,
        "feed": made.feed_id,
        "feed_line": made.line_id,
    }
    return {kind: public_id(PREFIXES[kind], row_id) for kind, row_id in rows.items()}


def _bank_rows(tenant: TenantFixture, owner: Person) -> dict[str, UUID]:
    """Without a reference, which the owner can still get."""
    return make_every_bank_row(tenant, owner, with_reference=False)


def _fleet_of(model: ModelFixture) -> dict[str, str]:
    """What the model runs on; a cost and a capacity are set, so that pages show some."""
    with role_scope("operator"):
        pool_id = ServingBackend.objects.values_list("pool_id", flat=True).get(id=model.backend_id)
        why: dict[str, Any] = {"actor": audit.SYSTEM, "reason": "for the test", "now": utc_now()}
        cost = CostEntry("USD", 8, 2 * 10**9, 5 * 10**8, 10_000, 1250, 12 * 10**7, owner="ours")
        fleet_operations.set_pool_cost(pool_id=pool_id, entry=cost, **why)
        capacity = CapacityEntry(600_000, 250, 25, 1000, 2000)
        fleet_operations.set_capacity(deployment_id=model.deployment_id, entry=capacity, **why)
    return {
        "pool": public_id(PREFIXES["pool"], pool_id),
        "backend": public_id(PREFIXES["backend"], model.backend_id),
        "deployment": public_id(PREFIXES["deployment"], model.deployment_id),
    }


def _some_transfer(tenant_id: UUID) -> UUID:
    found: UUID = rows_of("quotas_ledgerentry", tenant_id=tenant_id)[0]["transfer_id"]
    return found


def _limit(tenant_id: UUID, owner_id: UUID) -> UUID:
    """A limit of the organization's own that stops nothing."""
    with tenant_scope(tenant_id):
        return limit_operations.set_limit(
            tenant_id=tenant_id,
            kind=LimitKind.TOKENS_DAY,
            value=10**9,
            origin=LimitOrigin.TENANT,
            actor=audit.member(owner_id, Role.OWNER),
            now=utc_now(),
        )


def _management_key(tenant_id: UUID, owner_id: UUID) -> UUID:
    """A key of a program that the owner runs."""
    assert settings.SECRET_STORE is not None
    with tenant_scope(tenant_id):
        return tenant_operations.create_management_key(
            tenant_id=tenant_id,
            name="nightly",
            role=Role.VIEWER,
            scopes=[ManagementScope.USAGE_READ],
            expires_at=None,
            actor=audit.member(owner_id, Role.OWNER),
            secrets=settings.SECRET_STORE,
            now=utc_now(),
        ).id


@cache
def _any_operator_key() -> str:
    """A key of an operator: those belong to no organization."""
    assert settings.SECRET_STORE is not None
    maker = make_person("keyholder", is_staff=True)
    with role_scope("operator"):
        return tenant_operations.create_operator_key(
            name="figures",
            scopes=[ManagementScope.BUSINESS_READ],
            expires_at=utc_now() + timedelta(days=1),
            actor=audit.operator(maker.id),
            reason="for the test",
            secrets=settings.SECRET_STORE,
            now=utc_now(),
        ).public_id


@cache
def _any_tier() -> str:
    """A tier that nobody has: tiers belong to the installation."""
    return public_id(PREFIXES["tier"], make_tier())


def _draft(model_id: UUID, user_id: UUID) -> UUID:
    """A draft of an operator: what the model costs now, once more."""
    with role_scope("operator"):
        return price_drafts.create_draft(
            model_id=model_id,
            currency="USD",
            copy_of=price_queries.in_force(model_id=model_id, currency="USD", tenant_id=None, now=utc_now()),
            actor=audit.operator(user_id),
            now=utc_now(),
        )


def _order(tenant_id: UUID) -> UUID:
    """An order of an operator that waits for another one."""
    with role_scope("operator"):
        return credit_operations.order_credit(
            tenant_id=tenant_id,
            kind=CreditOrderKind.GRANT,
            amount_nanos=2,
            reason="for the test",
            actor=audit.operator(make_person("orderer", is_staff=True).id),
            policy=CreditPolicy(limit_nanos=1, line_limit_nanos=0),
            now=utc_now(),
        ).id


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


AUDIT_LOG = "tenants_auditevent"


def digest_of(tenant_id: UUID, *, without: Sequence[str] = ()) -> dict[str, str]:
    """A digest of all rows that an organization owns, by table: equal means that nothing was changed.

    without: tables that are left out, such as the AUDIT_LOG where attempts stand that changed nothing.
    """
    with ExitStack() as stack:
        roles = {role: stack.enter_context(connected(role)) for role in READERS}
        found: dict[str, str] = {}
        for role, tables in _tables_by_reader().items():
            wanted = [table for table in tables if table not in without]
            if wanted:
                query = sql.SQL(" UNION ALL ").join(_digest(table) for table in wanted)
                found.update(roles[role].execute(query, {"tenant": tenant_id}).fetchall())
    return found


# Each table is read by the first role that may read all of it.
READERS = ("operator", "auth", "dataplane")


@cache
def _tables_by_reader() -> dict[str, list[str]]:
    """The tables with rows of organizations, by who reads them."""
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
        roles = {role: stack.enter_context(connected(role)) for role in READERS}
        found: dict[str, list[str]] = {role: [] for role in READERS}
        for table in (*tables, _ORGANIZATIONS):
            reader = next((role for role in READERS if _may_read(roles[role], table)), None)
            assert reader is not None, f"no role may read all of {table}"
            found[reader].append(table)
    return found


def _may_read(connection: psycopg.Connection[Any], table: str) -> bool:
    try:
        connection.execute(_digest(table), {"tenant": uuid7()})
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


_ORGANIZATIONS = "tenants_tenant"


def _digest(table: str) -> sql.Composed:
    return sql.SQL(
        "SELECT {} AS name, md5(coalesce(string_agg(row::text, '|' ORDER BY row::text), '')) AS digest "
        "FROM {} row WHERE {} = %(tenant)s"
    ).format(
        sql.Literal(table),
        sql.Identifier(table),
        sql.Identifier("id" if table == _ORGANIZATIONS else "tenant_id"),
    )
