"""Whose key opens what: and how each key that does not is answered."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from portal.api.tests.stage import make_management_key, open_stage, problem_of, program
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.secrets import new_management_key
from tenants import operations
from tenants.models import Membership, Role, User
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import rows_of
from tests.people import add_member, make_member, signed_in

pytestmark = pytest.mark.usefixtures("database")


def test_a_key_says_whose_it_is() -> None:
    stage = open_stage()
    answer = stage.program.get("/organization")
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert (body["id"], body["currency"], body["state"]) == (stage.tenant.public_id, "USD", "ACTIVE")
    assert body["management_key"]["id"] == stage.key.public_id
    assert body["management_key"]["role"] == "OWNER"
    assert answer["Cache-Control"] == "no-store"
    assert answer["X-Request-Id"].startswith("req_")
    assert answer["Content-Type"] == "application/json"


def test_without_a_right_key_nothing_opens() -> None:
    stage = open_stage()
    known = stage.key.token
    other_secret = new_management_key(stage.key.id).token
    for token, code in (
        (new_management_key(uuid7()).token, "key-unknown"),
        (other_secret, "key-unknown"),
        (known[:-1], "key-unknown"),
        (known[:-1] + ("A" if known[-1] != "A" else "B"), "key-unknown"),
        ("x" * 500, "key-unknown"),
        (stage.tenant.key.token, "wrong-kind-of-key"),
    ):
        answer = program(token).get("/organization")
        problem_of(answer, 401, code)
        assert answer["WWW-Authenticate"].startswith("Bearer ")
        assert token[:12] not in answer.content.decode()
    answer = Client().get("/api/v1/organization")
    problem_of(answer, 401, "key-missing")
    assert answer["WWW-Authenticate"].startswith("Bearer ")
    problem_of(
        Client().get("/api/v1/organization", headers={"Authorization": "Basic eDp5"}), 401, "key-unknown"
    )


def test_a_session_opens_nothing() -> None:
    stage = open_stage()
    problem_of(signed_in(stage.owner).get("/api/v1/organization"), 401, "key-missing")


def test_a_management_key_calls_no_models(gateway) -> None:
    import httpx2

    answer = httpx2.get(
        f"{gateway.api_base}/models", headers={"Authorization": f"Bearer {open_stage().key.token}"}
    )
    assert answer.status_code == 401
    assert "management key" in answer.json()["error"]["message"]


def test_a_revoked_and_an_expired_key_say_so() -> None:
    stage = open_stage()
    begun = utc_now() - timedelta(hours=2)
    late = make_management_key(stage.tenant, stage.owner, expires_at=begun + timedelta(hours=1), now=begun)
    problem_of(program(late.token).get("/organization"), 401, "key-expired")
    with tenant_scope(stage.tenant.id):
        operations.revoke_management_key(
            tenant_id=stage.tenant.id,
            key_id=stage.key.id,
            actor=audit.member(stage.owner.id, Role.OWNER),
            now=utc_now(),
        )
    problem_of(stage.program.get("/organization"), 401, "key-revoked")
    events = rows_of("tenants_auditevent", tenant_id=stage.tenant.id, target=stage.key.public_id)
    assert {event["action"] for event in events} == {"management_key.create", "management_key.revoke"}


def test_a_key_ends_with_the_membership_of_its_maker() -> None:
    stage = open_stage()
    admin = make_member(stage.tenant, Role.ADMIN)
    key = make_management_key(stage.tenant, admin, maker_role=Role.ADMIN, role=Role.ADMIN)
    assert program(key.token).get("/organization").status_code == 200
    with role_scope("operator"):
        membership = Membership.objects.get(tenant_id=stage.tenant.id, user_id=admin.id)
    with tenant_scope(stage.tenant.id):
        operations.remove_member(
            tenant_id=stage.tenant.id,
            membership_id=membership.id,
            actor_role=Role.OWNER,
            now=utc_now(),
        )
    problem_of(program(key.token).get("/organization"), 401, "key-revoked")
    # It does not come back with them.
    add_member(stage.tenant, admin, Role.ADMIN)
    problem_of(program(key.token).get("/organization"), 401, "key-revoked")


def test_a_key_ends_when_its_maker_may_less_than_it() -> None:
    stage = open_stage()
    admin = make_member(stage.tenant, Role.ADMIN)
    high, low = (
        make_management_key(stage.tenant, admin, maker_role=Role.ADMIN, role=role)
        for role in (Role.ADMIN, Role.VIEWER)
    )
    with role_scope("operator"):
        membership = Membership.objects.get(tenant_id=stage.tenant.id, user_id=admin.id)
    with tenant_scope(stage.tenant.id):
        operations.change_role(
            tenant_id=stage.tenant.id,
            membership_id=membership.id,
            role=Role.DEVELOPER,
            actor_role=Role.OWNER,
            now=utc_now(),
        )
    problem_of(program(high.token).get("/organization"), 401, "key-revoked")
    assert program(low.token).get("/organization").status_code == 200


@pytest.mark.parametrize("change", ["inactive", "demoted", "gone"])
def test_whatever_ended_the_makers_rights_the_key_is_refused(change: str) -> None:
    """Also where nobody thought of revoking the key."""
    stage = open_stage()
    with role_scope("operator"):
        mine = Membership.objects.filter(tenant_id=stage.tenant.id, user_id=stage.owner.id)
        if change == "demoted":
            make_member(stage.tenant, Role.OWNER)
            mine.update(role=Role.VIEWER)
        elif change == "gone":
            make_member(stage.tenant, Role.OWNER)
            mine.delete()
    if change == "inactive":
        with role_scope("auth"):
            User.objects.filter(id=stage.owner.id).update(is_active=False)
    problem_of(stage.program.get("/organization"), 401, "key-without-maker")


@pytest.mark.parametrize("role", [Role.OWNER, Role.DEVELOPER, Role.BILLING])
def test_nobody_makes_a_key_that_may_more_than_they(role: Role) -> None:
    stage = open_stage()
    admin = make_member(stage.tenant, Role.ADMIN)
    if role == Role.OWNER:
        with pytest.raises(operations.RoleTooHigh):
            make_management_key(stage.tenant, admin, maker_role=Role.ADMIN, role=Role.OWNER)
    member = make_member(stage.tenant, role)
    if role != Role.OWNER:
        # Whatever the caller says, the membership decides.
        with pytest.raises(operations.RoleTooHigh):
            make_management_key(stage.tenant, member, maker_role=Role.OWNER, role=Role.VIEWER)


def test_use_is_noted_once_a_minute() -> None:
    stage = open_stage()
    stage.program.get("/organization")
    (row,) = rows_of("tenants_managementkey", role="auth", id=stage.key.id)
    noted = row["last_used_at"]
    assert noted is not None
    stage.program.get("/organization")
    assert rows_of("tenants_managementkey", role="auth", id=stage.key.id)[0]["last_used_at"] == noted


def test_only_who_looks_keys_up_reads_digests() -> None:
    import psycopg

    from tests.database import connected

    for role in ("tenant", "operator"):
        with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT digest FROM tenants_managementkey")
