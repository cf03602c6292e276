"""The audit log between an organization and operators, as PostgreSQL itself keeps it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.conf import settings

from portal.api.tests.stage import make_management_key
from portal.kit.ids import uuid7
from tenants import operations
from tenants.models import Role
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import TenantFixture, make_tenant
from tests.people import make_member

pytestmark = pytest.mark.usefixtures("database")

INSERT = (
    "INSERT INTO tenants_auditevent (id, actor_kind, actor_id, actor_role, action, outcome, tenant_id, "
    "target, reason, is_internal) VALUES (%s, %s, %s, '', 'credit.order', 'DONE', %s, '', '', %s)"
)


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant()


def in_scope(tenant_id: UUID, statement: str, *params: Any) -> list[tuple[Any, ...]]:
    """One statement as the tenant role in the scope of an organization."""
    with connected("tenant") as connection, connection.transaction():
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant_id),))
        cursor = connection.execute(statement, params)
        return list(cursor.fetchall()) if cursor.description else []


@pytest.mark.parametrize(("kind", "is_internal"), [("OPERATOR", False), ("MEMBER", True)])
def test_an_organization_forges_no_operators_events(
    tenant: TenantFixture, kind: str, is_internal: bool
) -> None:
    owner = make_member(tenant, Role.OWNER)
    in_scope(tenant.id, INSERT, uuid7(), "MEMBER", owner.id, tenant.id, False)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        in_scope(tenant.id, INSERT, uuid7(), kind, owner.id, tenant.id, is_internal)


@pytest.mark.parametrize(
    "change", ["UPDATE tenants_auditevent SET reason = 'x'", "DELETE FROM tenants_auditevent"]
)
@pytest.mark.parametrize("role", ["tenant", "operator", "auth", "dataplane"])
def test_nobody_changes_what_was_written_down(role: str, change: str) -> None:
    with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(change)


def test_what_operators_keep_to_themselves_is_not_the_organizations_to_read(tenant: TenantFixture) -> None:
    operator = make_member(make_tenant(), Role.OWNER)
    with role_scope("operator"):
        operations.add_note(tenant_id=tenant.id, text="between us", actor=audit.operator(operator.id))
    seen = in_scope(tenant.id, "SELECT action, after::text FROM tenants_auditevent")
    assert [row for row in seen if row[0] == "tenant.note" or "between us" in (row[1] or "")] == []


@pytest.mark.parametrize("column", ["digest", "*"])
@pytest.mark.parametrize("role", ["tenant", "operator", "dataplane"])
def test_digests_of_management_keys_are_read_by_the_entrance_alone(
    tenant: TenantFixture, role: str, column: str
) -> None:
    make_management_key(tenant, make_member(tenant, Role.OWNER))
    assert settings.SECRET_STORE is not None
    with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"SELECT {column} FROM tenants_managementkey")


@pytest.mark.parametrize("role", ["tenant", "auth", "dataplane"])
@pytest.mark.parametrize(
    "table",
    [
        "models_catalog_capacityversion",
        "models_catalog_poolcostversion",
        "quotas_allocatedhour",
        "quotas_businesshour",
        "quotas_closedbalance",
        "quotas_creditorder",
        "quotas_deploymenthour",
        "quotas_poolhour",
        "quotas_pricereplay",
        "tenants_tenantnote",
    ],
)
def test_the_centres_own_figures_are_operators_alone(table: str, role: str) -> None:
    with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"SELECT 1 FROM {table}")
