"""The playground's keys: one a person, of nobody's knowledge; and how keys are listed and changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from django.db import IntegrityError, transaction

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants import operations, queries
from tenants.models import ApiKey, KeyPurpose, Membership, Role
from tenants.operations import PlaygroundKey
from tenants.queries import KeyState
from tenants.scope import tenant_scope
from tenants.tests.people import add_member, at_once, make_organization, make_user, store
from tests.database import connected, rows_of, wait_until_blocked

pytestmark = pytest.mark.usefixtures("database")


def playground_key(member: Membership) -> PlaygroundKey:
    with tenant_scope(member.tenant_id):
        return operations.playground_key(
            tenant_id=member.tenant_id, user_id=member.user_id, secrets=store(), now=utc_now()
        )


def test_it_is_made_once_and_found_again() -> None:
    tenant, owner = make_organization()
    key = playground_key(owner)
    assert playground_key(owner) == key
    other = playground_key(add_member(tenant.id))
    assert other.id != key.id
    assert other.digest_hex != key.digest_hex
    (row,) = rows_of("tenants_apikey", id=key.id)
    assert (row["purpose"], row["created_by_id"], row["secret_hint"]) == ("PLAYGROUND", owner.user_id, "")
    assert bytes(row["digest"]).hex() == key.digest_hex


def test_the_first_uses_at_once_make_one() -> None:
    _, owner = make_organization()
    answers = at_once([partial(playground_key, owner)] * 8)
    assert len({answer.id for answer in answers if isinstance(answer, PlaygroundKey)}) == 1
    assert all(isinstance(answer, PlaygroundKey) for answer in answers)
    assert len(rows_of("tenants_apikey", tenant_id=owner.tenant_id, purpose="PLAYGROUND")) == 1


def test_only_members_have_one() -> None:
    tenant, _ = make_organization()
    stranger, strangers_owner = make_organization()
    for tenant_id, user_id in ((tenant.id, make_user().id), (tenant.id, strangers_owner.user_id)):
        with tenant_scope(tenant_id), pytest.raises(operations.NotAMember):
            operations.playground_key(tenant_id=tenant_id, user_id=user_id, secrets=store(), now=utc_now())
    with tenant_scope(stranger.id), pytest.raises(operations.NotAMember):
        operations.playground_key(
            tenant_id=tenant.id, user_id=strangers_owner.user_id, secrets=store(), now=utc_now()
        )


def test_a_revoked_one_is_replaced_at_the_next_use() -> None:
    _, owner = make_organization()
    key = playground_key(owner)
    with tenant_scope(owner.tenant_id):
        operations.revoke_api_key(tenant_id=owner.tenant_id, key_id=key.id, now=utc_now())
    assert playground_key(owner).id != key.id


def test_no_key_outlives_a_removal_at_the_same_time() -> None:
    """The removal has begun and is not committed when the person comes for a key."""
    tenant, _ = make_organization()
    member = add_member(tenant.id)
    with connected("operator", autocommit=False) as removing:
        removing.execute("DELETE FROM tenants_membership WHERE id = %s", (member.id,))

        def finish_removal() -> None:
            with connected("owner") as observer:
                waiting = None
                while waiting is None:
                    waiting = observer.execute(
                        "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))",
                        (removing.info.backend_pid,),
                    ).fetchone()
            wait_until_blocked(waiting[0])
            removing.commit()

        calls: list[Callable[[], object]] = [finish_removal, partial(playground_key, member)]
        _, answer = at_once(calls)
    assert isinstance(answer, operations.NotAMember)
    assert rows_of("tenants_apikey", tenant_id=tenant.id, created_by_id=member.user_id) == []


def test_nobody_gets_to_know_its_secret() -> None:
    _, owner = make_organization()
    key = playground_key(owner)
    with tenant_scope(owner.tenant_id):
        with pytest.raises(operations.KeyNotFound):
            operations.rotate_api_key(
                tenant_id=owner.tenant_id, key_id=key.id, secrets=store(), now=utc_now(), overlap_s=0
            )
        with pytest.raises(operations.KeyNotFound):
            operations.update_api_key(tenant_id=owner.tenant_id, key_id=key.id, name="mine")
        assert queries.find_api_key(tenant_id=owner.tenant_id, key_id=key.id, now=utc_now()) is None
        listed = queries.list_api_keys(tenant_id=owner.tenant_id, now=utc_now())
        every = queries.list_api_keys(tenant_id=owner.tenant_id, now=utc_now(), with_playground=True)
    assert key.id not in {row.id for row in listed}
    (row,) = [row for row in every if row.purpose == KeyPurpose.PLAYGROUND]
    assert (row.id, row.created_by_email, row.masked) == (key.id, owner.user.email, "")


def test_the_database_allows_one_live_key_a_person() -> None:
    _, owner = make_organization()
    key = playground_key(owner)
    copy = (
        "INSERT INTO tenants_apikey (id, tenant_id, purpose, created_by_id, name, labels, pepper_number, "
        "digest, secret_hint, restricts_models) SELECT %s, tenant_id, purpose, {creator}, name, labels, "
        "pepper_number, digest, secret_hint, restricts_models FROM tenants_apikey WHERE id = %s"
    )
    with connected("operator") as connection:
        with pytest.raises(psycopg.errors.UniqueViolation, match="apikey_playground_once"):
            connection.execute(copy.format(creator="created_by_id"), (uuid7(), key.id))
        with pytest.raises(psycopg.errors.CheckViolation, match="apikey_playground_of_somebody"):
            connection.execute(copy.format(creator="NULL"), (uuid7(), key.id))


@pytest.mark.parametrize("change", ["purpose = 'PLAYGROUND'", "created_by_id = NULL"])
def test_what_a_key_is_for_never_changes(change: str) -> None:
    tenant, owner = make_organization()
    with tenant_scope(tenant.id):
        key = operations.create_api_key(
            tenant_id=tenant.id, name="k", secrets=store(), now=utc_now(), created_by_id=owner.user_id
        )
    with connected("owner") as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(f"UPDATE tenants_apikey SET {change} WHERE id = %s", (key.id,))
    with connected("tenant") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"UPDATE tenants_apikey SET {change} WHERE id = %s", (key.id,))


def test_a_list_of_keys_says_in_what_state_each_is() -> None:
    tenant, owner = make_organization()
    now = utc_now()
    with tenant_scope(tenant.id):
        make = partial(
            operations.create_api_key, tenant_id=tenant.id, secrets=store(), created_by_id=owner.user_id
        )
        expiring = make(name="expiring", now=now, expires_at=now + timedelta(hours=1), labels={"team": "a"})
        rotated = make(name="rotated", now=now)
        operations.rotate_api_key(
            tenant_id=tenant.id, key_id=rotated.id, secrets=store(), now=now, overlap_s=7200
        )
        revoked = make(name="revoked", now=now)
        operations.revoke_api_key(tenant_id=tenant.id, key_id=revoked.id, now=now)
        rows = {row.id: row for row in queries.list_api_keys(tenant_id=tenant.id, now=now)}
        later = {
            row.id: row for row in queries.list_api_keys(tenant_id=tenant.id, now=now + timedelta(hours=1))
        }
    assert len(rows) == 5
    assert (rows[expiring.id].state, later[expiring.id].state) == (KeyState.ACTIVE, KeyState.EXPIRED)
    assert (rows[rotated.id].state, rows[rotated.id].is_live) == (KeyState.REPLACED, True)
    assert (rows[revoked.id].state, rows[revoked.id].is_live) == (KeyState.REVOKED, False)
    row = rows[expiring.id]
    assert (row.name, row.labels, row.created_by_email) == ("expiring", {"team": "a"}, owner.user.email)
    assert row.masked == f"slc_…{expiring.token[-4:]}"
    assert rows[tenant.key.id].created_by_email == ""


def test_a_maker_who_has_left_is_not_named() -> None:
    tenant, _ = make_organization()
    member = add_member(tenant.id)
    with tenant_scope(tenant.id):
        key = operations.create_api_key(
            tenant_id=tenant.id, name="k", secrets=store(), now=utc_now(), created_by_id=member.user_id
        )
        operations.leave(tenant_id=tenant.id, user_id=member.user_id, now=utc_now())
        row = queries.find_api_key(tenant_id=tenant.id, key_id=key.id, now=utc_now())
    assert row is not None
    assert row.created_by_email == ""


def test_name_and_labels_change() -> None:
    tenant, _ = make_organization()
    change = partial(operations.update_api_key, tenant_id=tenant.id, key_id=tenant.key.id)
    with tenant_scope(tenant.id):
        change(name=" new ", labels={"a": "b"})
        change(labels={"a": "c"})
        change(name="newer")
        key = ApiKey.objects.get(id=tenant.key.id)
        for wrong in ({"name": ""}, {"labels": {"": "x"}}):
            with pytest.raises(operations.InvalidKeyOptions):
                change(**wrong)
        operations.revoke_api_key(tenant_id=tenant.id, key_id=tenant.key.id, now=utc_now())
        with pytest.raises(operations.KeyNotFound):
            change(name="late")
    assert (key.name, key.labels) == ("newer", {"a": "c"})
    stranger, _ = make_organization()
    with tenant_scope(stranger.id), pytest.raises(operations.KeyNotFound):
        change(name="theirs")


def test_a_purpose_is_one_of_two() -> None:
    tenant, _ = make_organization()
    with (
        pytest.raises(IntegrityError, match="apikey_purpose_known"),
        tenant_scope(tenant.id),
        transaction.atomic(using="tenant"),
    ):
        ApiKey.objects.create(tenant_id=tenant.id, purpose="OTHER", name="x", pepper_number=1, digest=b"x")


@pytest.mark.parametrize("role", [Role.BILLING, Role.VIEWER])
def test_who_may_not_chat_has_none(role: Role) -> None:
    tenant, _ = make_organization()
    with pytest.raises(operations.NotAMember):
        playground_key(add_member(tenant.id, role))
