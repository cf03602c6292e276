"""Looking for organizations, and reading the audit log."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.audit_queries import AuditFilter, audit_page, known_actions
from tenants.models import AuditOutcome, Tenant, TenantState
from tenants.operations import audit
from tenants.scope import role_scope
from tenants.search import TenantPage, count_suspended, find_tenant, search_tenants
from tenants.tests.people import make_organization, make_user
from tests.factories import TenantFixture, make_tenant, set_state

pytestmark = pytest.mark.usefixtures("database")


def search(text: str = "", **options: object) -> TenantPage:
    with role_scope("operator"):
        return search_tenants(text=text, **options)  # type: ignore[arg-type]


def name_of(tenant: TenantFixture) -> str:
    with role_scope("operator"):
        return Tenant.objects.get(id=tenant.id).name


def test_an_organization_is_found_by_what_people_know_of_it() -> None:
    tenant, owner = make_organization()
    name = name_of(tenant)
    for text in (
        tenant.public_id,
        public_id(PREFIXES["api_key"], tenant.key.id),
        name,
        name[3:].upper(),
        f"  {name} ",
        owner.user.email,
        owner.user.email[:20].upper(),
    ):
        assert [row.id for row in search(text).rows] == [tenant.id], text
    (row,) = search(tenant.public_id).rows
    assert (row.name, row.members, row.owner_email) == (name, 1, owner.user.email)
    for text in (public_id(PREFIXES["organization"], uuid7()), "no such name", "%", "_", "\0", "x" * 200):
        assert search(text).rows == (), text


def test_states_and_pages() -> None:
    made = [make_tenant(granted=None) for _ in range(3)]
    stem = f"Paged {uuid7().hex}"
    with role_scope("operator"):
        Tenant.objects.filter(id__in=[one.id for one in made]).update(name=stem)
    set_state(made[0].id, TenantState.SUSPENDED)
    first = search(stem, limit=2)
    newest_first = sorted((one.id for one in made), reverse=True)
    assert [row.id for row in first.rows] == newest_first[:2]
    assert [row.id for row in search(stem, before=first.next).rows] == newest_first[2:]
    assert search(stem, before=first.next).next is None
    assert [row.id for row in search(stem, state=TenantState.SUSPENDED).rows] == [made[0].id]
    with role_scope("operator"):
        assert count_suspended() >= 1
        assert find_tenant(tenant_id=uuid7()) is None


def test_the_log_is_read_newest_first_and_by_what_is_asked() -> None:
    tenant, other = make_tenant(), make_tenant()
    user = make_user()
    actor, stem = (
        audit.operator(user.id),
        f"test_{uuid7().hex}".translate(str.maketrans("0123456789", "g" * 10)),
    )
    with role_scope("operator"):
        for number in range(5):
            audit.record(actor=actor, action=f"{stem}.one", tenant_id=tenant.id, after={"number": number})
        audit.record(actor=audit.SYSTEM, action=f"{stem}.two", tenant_id=other.id, is_internal=True)
        audit.record_refusal(actor=actor, action=f"{stem}.three", reason="not you", tenant_id=tenant.id)

        def read(limit: int = 50, **filters: object) -> list[str]:
            page = audit_page(filters=AuditFilter(**filters), limit=limit)  # type: ignore[arg-type]
            return [row.action.removeprefix(f"{stem}.") for row in page.rows]

        assert read(action=f"{stem}.") == ["three", "two", *["one"] * 5]
        assert read(action=f"{stem}.two") == ["two"]
        assert read(tenant_id=tenant.id) == ["three", *["one"] * 5]
        assert read(actor_email=user.email.upper(), outcome=AuditOutcome.REFUSED) == ["three"]
        now = utc_now()
        assert read(action=f"{stem}.", from_at=now - timedelta(days=1), to_at=now + timedelta(hours=1)) != []
        assert read(action=f"{stem}.", to_at=now - timedelta(days=1)) == []
        first = audit_page(filters=AuditFilter(tenant_id=tenant.id), limit=4)
        second = audit_page(filters=AuditFilter(tenant_id=tenant.id), before=first.next, limit=4)
        rows = [*first.rows, *second.rows]
        assert [row.id for row in rows] == sorted((row.id for row in rows), reverse=True)
        assert sorted((row.after or {}).get("number", 9) for row in rows) == [0, 1, 2, 3, 4, 9]
        assert second.next is None
        assert [action for action in known_actions() if action.startswith(stem)] == [
            f"{stem}.one",
            f"{stem}.three",
            f"{stem}.two",
        ]
