"""Terms: who accepted which version, once and for good; and the table of roles in the documentation."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError

from tenants import operations, queries
from tenants.models import Role
from tenants.permissions import DESCRIPTIONS, PERMISSIONS, Permission, may
from tenants.role_table import ROLE_WORDS, render_role_table
from tenants.scope import role_scope
from tenants.tests.people import make_organization, make_user
from tests.database import connected, rows_of

ROOT = Path(__file__).resolve().parents[2]


def accept(user_id: UUID, version: str, tenant_id: UUID | None = None) -> None:
    with role_scope("auth"):
        operations.accept_terms(user_id=user_id, version=version, tenant_id=tenant_id)


def has_accepted(user_id: UUID, version: str) -> bool:
    with role_scope("auth"):
        return queries.has_accepted(user_id=user_id, version=version)


def test_the_first_acceptance_of_a_version_counts(database: None) -> None:
    user, other = make_user(), make_user()
    assert not has_accepted(user.id, "2026-11")
    accept(user.id, "2026-11")
    first = rows_of("tenants_termsacceptance", user_id=user.id)
    accept(user.id, "2026-11")
    assert rows_of("tenants_termsacceptance", user_id=user.id) == first
    assert len(first) == 1
    assert has_accepted(user.id, "2026-11")
    assert not has_accepted(user.id, "2027-01")
    assert not has_accepted(other.id, "2026-11")


def test_a_version_has_a_name(database: None) -> None:
    with pytest.raises(IntegrityError, match="termsacceptance_version_named"):
        accept(make_user().id, "")


@pytest.mark.parametrize(
    "change", ["UPDATE tenants_termsacceptance SET version = 'x'", "DELETE FROM tenants_termsacceptance"]
)
def test_what_was_accepted_stays(change: str, database: None) -> None:
    user = make_user()
    accept(user.id, "2026-11")
    with connected("owner") as connection, pytest.raises(psycopg.errors.RestrictViolation, match="append"):
        connection.execute(f"{change} WHERE user_id = %s", (user.id,))
    for role in ("auth", "operator", "dataplane", "tenant"):
        with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"{change} WHERE user_id = %s", (user.id,))


def test_a_tenant_reads_nobodys_terms(database: None) -> None:
    tenant, owner = make_organization()
    accept(owner.user_id, "2026-11", tenant.id)
    with connected("tenant", autocommit=False) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant.id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT user_id FROM tenants_termsacceptance")


def test_the_table_of_roles_is_what_the_product_asks() -> None:
    """Should this fail: `python manage.py role_table > docs/roles.md`."""
    assert (ROOT / "docs" / "roles.md").read_text(encoding="utf-8") == render_role_table()


def test_every_role_and_permission_stands_in_the_table() -> None:
    assert set(PERMISSIONS) == set(ROLE_WORDS) == set(Role)
    assert set(DESCRIPTIONS) == set(Permission)
    rows = [line for line in render_role_table().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(Permission)
    assert all(row.count("|") == 2 + len(Role) for row in rows)


def test_an_unknown_role_may_do_nothing() -> None:
    assert not any(may("STRANGER", permission) for permission in Permission)
