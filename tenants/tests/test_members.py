"""Members: who may change whom, and an organization that keeps an owner whatever happens at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants import operations, queries
from tenants.models import Membership, Role
from tenants.permissions import Permission, may
from tenants.scope import role_scope, tenant_scope
from tenants.tests.people import add_member, at_once, make_organization, store
from tests.database import connected, rows_of, wait_until_blocked

pytestmark = pytest.mark.usefixtures("database")


def roles_of(tenant_id: UUID) -> dict[UUID, str]:
    return {row["id"]: row["role"] for row in rows_of("tenants_membership", tenant_id=tenant_id)}


def change(member: Membership, role: Role, actor_role: Role = Role.OWNER) -> None:
    with tenant_scope(member.tenant_id):
        operations.change_role(
            tenant_id=member.tenant_id,
            membership_id=member.id,
            role=role,
            actor_role=actor_role,
            now=utc_now(),
        )


def remove(member: Membership, actor_role: Role = Role.OWNER) -> None:
    with tenant_scope(member.tenant_id):
        operations.remove_member(
            tenant_id=member.tenant_id, membership_id=member.id, actor_role=actor_role, now=utc_now()
        )


def leave(member: Membership) -> None:
    with tenant_scope(member.tenant_id):
        operations.leave(tenant_id=member.tenant_id, user_id=member.user_id, now=utc_now())


def test_members_are_listed_owners_first() -> None:
    tenant, owner = make_organization()
    viewer, admin = add_member(tenant.id, Role.VIEWER), add_member(tenant.id, Role.ADMIN)
    with tenant_scope(tenant.id):
        rows = queries.list_members(tenant_id=tenant.id)
    assert [row.membership_id for row in rows] == [owner.id, admin.id, viewer.id]
    assert rows[0].email == owner.user.email
    assert rows[0].public_id.startswith("mem_")


@pytest.mark.parametrize("actor", list(Role))
@pytest.mark.parametrize("concerned", list(Role))
def test_who_may_remove_whom(actor: Role, concerned: Role) -> None:
    tenant, owner = make_organization()
    member = add_member(tenant.id, concerned)
    is_allowed = may(actor, Permission.MANAGE_MEMBERS) and (
        concerned != Role.OWNER or may(actor, Permission.MANAGE_ORGANIZATION)
    )
    if is_allowed:
        remove(member, actor)
        assert roles_of(tenant.id) == {owner.id: "OWNER"}
    else:
        with pytest.raises(operations.NotAllowed):
            remove(member, actor)
        assert member.id in roles_of(tenant.id)


@pytest.mark.parametrize(
    ("before", "after", "actor", "is_allowed"),
    [
        (Role.VIEWER, Role.ADMIN, Role.ADMIN, True),
        (Role.ADMIN, Role.VIEWER, Role.ADMIN, True),
        (Role.ADMIN, Role.OWNER, Role.ADMIN, False),
        (Role.OWNER, Role.ADMIN, Role.ADMIN, False),
        (Role.OWNER, Role.ADMIN, Role.OWNER, True),
        (Role.VIEWER, Role.OWNER, Role.OWNER, True),
        (Role.VIEWER, Role.DEVELOPER, Role.DEVELOPER, False),
        (Role.VIEWER, Role.DEVELOPER, Role.BILLING, False),
    ],
)
def test_who_may_change_roles(before: Role, after: Role, actor: Role, is_allowed: bool) -> None:
    tenant, _ = make_organization()
    member = add_member(tenant.id, before)
    if is_allowed:
        change(member, after, actor)
    else:
        with pytest.raises(operations.NotAllowed):
            change(member, after, actor)
    assert roles_of(tenant.id)[member.id] == (after if is_allowed else before)


def test_the_last_owner_stays_one() -> None:
    _, owner = make_organization()
    for attempt in (leave, remove, partial(change, role=Role.ADMIN)):
        with pytest.raises(operations.LastOwner):
            attempt(owner)
    change(owner, Role.OWNER)
    assert roles_of(owner.tenant_id) == {owner.id: "OWNER"}


def test_an_owner_leaves_when_there_is_another() -> None:
    tenant, owner = make_organization()
    other = add_member(tenant.id, Role.OWNER)
    leave(owner)
    assert roles_of(tenant.id) == {other.id: "OWNER"}
    with pytest.raises(operations.NotAMember):
        leave(owner)


@pytest.mark.parametrize(
    ("first", "second"),
    [(leave, leave), (leave, partial(change, role=Role.VIEWER)), (remove, partial(change, role=Role.ADMIN))],
)
def test_of_two_owners_who_go_at_once_one_stays(
    first: Callable[[Membership], None], second: Callable[[Membership], None]
) -> None:
    for _ in range(5):
        tenant, owner = make_organization()
        other = add_member(tenant.id, Role.OWNER)
        answers = at_once([partial(first, owner), partial(second, other)])
        assert [type(answer) for answer in answers if answer is not None] == [operations.LastOwner]
        assert list(roles_of(tenant.id).values()).count("OWNER") == 1


@pytest.mark.parametrize("role", ["tenant", "operator", "owner"])
def test_the_database_itself_keeps_an_owner(role: str) -> None:
    """Past every operation: two transactions delete an owner each, neither of which sees the other."""
    tenant, owner = make_organization()
    other = add_member(tenant.id, Role.OWNER)
    with connected(role, autocommit=False) as one, connected(role, autocommit=False) as two:
        for connection, member in ((one, owner), (two, other)):
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant.id),))
            connection.execute("DELETE FROM tenants_membership WHERE id = %s", (member.id,))
        one.execute("SET CONSTRAINTS ALL IMMEDIATE")

        def finish_second() -> None:
            two.commit()

        def finish_first() -> None:
            wait_until_blocked(two.info.backend_pid)
            one.commit()

        answers = at_once([finish_first, finish_second])
    assert answers[0] is None
    assert isinstance(answers[1], psycopg.errors.CheckViolation)
    assert answers[1].diag.constraint_name == "membership_keeps_owner"
    assert roles_of(tenant.id) == {other.id: "OWNER"}


def test_ownership_changes_hands_in_one_transaction() -> None:
    tenant, owner = make_organization()
    heir = add_member(tenant.id, Role.ADMIN)
    with tenant_scope(tenant.id):
        Membership.objects.filter(id=owner.id).update(role=Role.ADMIN)
        Membership.objects.filter(id=heir.id).update(role=Role.OWNER)
    assert roles_of(tenant.id) == {owner.id: "ADMIN", heir.id: "OWNER"}
    with pytest.raises(IntegrityError, match="keeps an owner"), tenant_scope(tenant.id):
        Membership.objects.filter(id=heir.id).update(role=Role.ADMIN)


@pytest.mark.parametrize("how", [leave, remove, partial(change, role=Role.BILLING)])
def test_who_may_not_chat_any_more_loses_the_playground(how: Callable[[Membership], None]) -> None:
    tenant, _ = make_organization()
    member = add_member(tenant.id)
    with tenant_scope(tenant.id):
        key = operations.playground_key(
            tenant_id=tenant.id, user_id=member.user_id, secrets=store(), now=utc_now()
        )
    how(member)
    (row,) = rows_of("tenants_apikey", id=key.id)
    assert row["revoked_at"] is not None
    # The key of a program goes on, also when the person made it.
    (program,) = rows_of("tenants_apikey", id=tenant.key.id)
    assert program["revoked_at"] is None


def test_a_role_that_may_chat_keeps_the_playground() -> None:
    tenant, _ = make_organization()
    member = add_member(tenant.id)
    with tenant_scope(tenant.id):
        key = operations.playground_key(
            tenant_id=tenant.id, user_id=member.user_id, secrets=store(), now=utc_now()
        )
    change(member, Role.ADMIN)
    (row,) = rows_of("tenants_apikey", id=key.id)
    assert row["revoked_at"] is None


def test_a_stranger_finds_no_member() -> None:
    _, owner = make_organization()
    stranger, _ = make_organization()
    with tenant_scope(stranger.id):
        for tenant_id in (stranger.id, owner.tenant_id):
            with pytest.raises((operations.MemberNotFound, operations.OrganizationNotFound)):
                operations.remove_member(
                    tenant_id=tenant_id, membership_id=owner.id, actor_role=Role.OWNER, now=utc_now()
                )
    assert owner.id in roles_of(owner.tenant_id)


def test_an_organization_is_renamed() -> None:
    tenant, _ = make_organization()
    with tenant_scope(tenant.id):
        operations.rename_tenant(tenant_id=tenant.id, name="  New \n name ")
        for wrong in ("", " ", "x" * 201, "left\u202eright", "see HTTPS://evil.example", "WWW.evil.example"):
            with pytest.raises(operations.InvalidName):
                operations.rename_tenant(tenant_id=tenant.id, name=wrong)
    (row,) = rows_of("tenants_tenant", id=tenant.id)
    assert row["name"] == "New name"
    with role_scope("operator"), pytest.raises(operations.OrganizationNotFound):
        operations.rename_tenant(tenant_id=uuid7(), name="Nobody")
