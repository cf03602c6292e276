"""Suspending and resuming, notes, keys that operators end: each with its reason and its event."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants import operations
from tenants.audit_queries import AuditFilter, audit_page
from tenants.models import Role, SuspensionCause, TenantState
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tenants.search import list_notes
from tenants.tests.people import add_member, at_once, make_organization, make_user
from tests.database import connected, rows_of
from tests.factories import make_tenant, set_state

pytestmark = pytest.mark.usefixtures("database")


def suspend(tenant_id: UUID, *, cuts_calls: bool = False, reason: str = "Unpaid invoice") -> audit.Actor:
    actor = audit.operator(make_user().id)
    with role_scope("operator"):
        operations.suspend_tenant(
            tenant_id=tenant_id, reason=reason, cuts_calls=cuts_calls, actor=actor, now=utc_now()
        )
    return actor


def resume(tenant_id: UUID) -> None:
    with role_scope("operator"):
        operations.resume_tenant(
            tenant_id=tenant_id, reason="Paid", actor=audit.operator(make_user().id), now=utc_now()
        )


def stored(tenant_id: UUID) -> tuple[str, str, bool]:
    (row,) = rows_of("tenants_tenant", id=tenant_id)
    return row["state"], row["state_reason"], row["cuts_calls"]


def events_of(tenant_id: UUID) -> list[dict[str, Any]]:
    return sorted(rows_of("tenants_auditevent", tenant_id=tenant_id), key=lambda row: row["id"])


def mails_of(tenant_id: UUID) -> list[dict[str, Any]]:
    return rows_of("tenants_outboxmessage", role="auth", tenant_id=tenant_id)


def test_a_suspension_is_told_to_the_members_and_written_down() -> None:
    tenant, owner = make_organization()
    viewer = add_member(tenant.id, Role.VIEWER)
    actor = suspend(tenant.id, cuts_calls=True)
    assert stored(tenant.id) == ("SUSPENDED", "Unpaid invoice", True)
    mails = mails_of(tenant.id)
    assert {mail["to_email"] for mail in mails} == {owner.user.email, viewer.user.email}
    assert all("Unpaid invoice" in mail["text_body"] and "cut" in mail["text_body"] for mail in mails)
    (event,) = events_of(tenant.id)
    assert (event["action"], event["actor_id"], event["reason"]) == (
        "tenant.suspend",
        actor.user_id,
        "Unpaid invoice",
    )
    assert event["before"] == {"state": "ACTIVE", "cuts_calls": False}
    assert event["after"] == {"state": "SUSPENDED", "cuts_calls": True}
    # The organization may read what was done to it.
    with tenant_scope(tenant.id):
        assert [row.action for row in audit_page(filters=AuditFilter()).rows] == ["tenant.suspend"]
    resume(tenant.id)
    assert stored(tenant.id) == ("ACTIVE", "", False)
    assert len(mails_of(tenant.id)) == 4


def test_a_suspension_can_be_sharpened_but_not_repeated() -> None:
    tenant = make_tenant()
    suspend(tenant.id)
    with pytest.raises(operations.AlreadySuspended):
        suspend(tenant.id)
    suspend(tenant.id, cuts_calls=True)
    assert stored(tenant.id)[2] is True


def test_the_system_lifts_only_what_it_suspended_for_that_cause() -> None:
    tenant, cause = make_tenant(), SuspensionCause.RECEIVABLE

    def by_the_system(*, is_suspended: bool) -> None:
        with role_scope("operator"):
            if is_suspended:
                operations.suspend_tenant(
                    tenant_id=tenant.id,
                    reason="Owes",
                    cuts_calls=False,
                    actor=audit.SYSTEM,
                    now=utc_now(),
                    cause=cause,
                )
            else:
                operations.resume_tenant(
                    tenant_id=tenant.id, reason="Paid", actor=audit.SYSTEM, now=utc_now(), cause=cause
                )

    def cause_of() -> str:
        (row,) = rows_of("tenants_tenant", id=tenant.id)
        return str(row["suspension_cause"])

    by_the_system(is_suspended=True)
    assert cause_of() == "RECEIVABLE"
    assert events_of(tenant.id)[0]["after"]["cause"] == "RECEIVABLE"
    with pytest.raises(operations.AlreadySuspended):
        by_the_system(is_suspended=True)
    by_the_system(is_suspended=False)
    assert (stored(tenant.id)[0], cause_of()) == ("ACTIVE", "")
    # An operator's replaces it, and then it is the operators' to lift.
    by_the_system(is_suspended=True)
    suspend(tenant.id)
    assert cause_of() == ""
    with pytest.raises(operations.NotSuspended):
        by_the_system(is_suspended=False)
    with pytest.raises(operations.AlreadySuspended):
        by_the_system(is_suspended=True)
    resume(tenant.id)
    by_the_system(is_suspended=True)
    resume(tenant.id)
    assert (stored(tenant.id)[0], cause_of()) == ("ACTIVE", "")
    with pytest.raises(psycopg.errors.CheckViolation), connected("operator") as connection:
        connection.execute(
            "UPDATE tenants_tenant SET suspension_cause = 'RECEIVABLE' WHERE id = %s", (tenant.id,)
        )


def test_what_cannot_be_suspended_or_resumed() -> None:
    tenant = make_tenant()
    with pytest.raises(operations.NotSuspended):
        resume(tenant.id)
    with pytest.raises(audit.ReasonMissing):
        suspend(tenant.id, reason="  ")
    with pytest.raises(operations.OrganizationNotFound):
        suspend(uuid7())
    set_state(tenant.id, TenantState.CLOSED)
    for change in (suspend, resume):
        with pytest.raises(operations.OrganizationClosed):
            change(tenant.id)
    assert events_of(tenant.id) == []


def test_two_operators_at_once_suspend_once() -> None:
    tenant = make_tenant()
    answers = at_once([lambda: suspend(tenant.id) for _ in range(3)])
    assert sum(isinstance(answer, operations.AlreadySuspended) for answer in answers) == 2
    assert len(events_of(tenant.id)) == 1


def test_a_member_whom_no_mail_reaches_keeps_nobody_from_suspending() -> None:
    tenant, owner = make_organization()
    # A provider of sign-ins inside a company may name such addresses.
    add_member(tenant.id, Role.VIEWER, make_user(f"{uuid7().hex}@intranet"))
    add_member(tenant.id, Role.VIEWER)
    suspend(tenant.id)
    assert stored(tenant.id)[0] == "SUSPENDED"
    assert len(mails_of(tenant.id)) == 2
    assert owner.user.email in {mail["to_email"] for mail in mails_of(tenant.id)}


def test_an_organization_that_has_sent_all_its_mails_is_suspended_all_the_same() -> None:
    tenant, _ = make_organization()
    with connected("auth") as connection:
        for _ in range(300):
            connection.execute(
                "INSERT INTO tenants_outboxmessage (id, tenant_id, to_email, subject, text_body, html_body, "
                "created_at, attempts, next_attempt_at, last_error) "
                "VALUES (%s, %s, 'a@b.example', 's', '', '', now(), 0, now(), '')",
                (uuid7(), tenant.id),
            )
    suspend(tenant.id)
    assert stored(tenant.id)[0] == "SUSPENDED"
    assert len(mails_of(tenant.id)) == 300


def test_notes_are_operators_and_stay() -> None:
    tenant, actor = make_tenant(), audit.operator(make_user().id)
    with role_scope("operator"):
        operations.add_note(tenant_id=tenant.id, text=" Called them.\nTwice. ", actor=actor)
        for text in ("", "   ", "x" * 4001, "\0"):
            with pytest.raises(operations.InvalidNote):
                operations.add_note(tenant_id=tenant.id, text=text, actor=actor)
        with pytest.raises(operations.OrganizationNotFound):
            operations.add_note(tenant_id=uuid7(), text="x", actor=actor)
        (note,) = list_notes(tenant_id=tenant.id)
    assert note.text == "Called them.\nTwice."
    (event,) = events_of(tenant.id)
    assert (event["action"], event["is_internal"]) == ("tenant.note", True)
    with tenant_scope(tenant.id):
        assert audit_page(filters=AuditFilter()).rows == ()
    with connected("operator") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE tenants_tenantnote SET text = 'x' WHERE id = %s", (note.id,))


def test_an_operator_ends_a_key() -> None:
    tenant, actor = make_tenant(), audit.operator(make_user().id)
    with role_scope("operator"):
        operations.revoke_key_for(
            tenant_id=tenant.id, key_id=tenant.key.id, reason="Found in a paste", actor=actor, now=utc_now()
        )
        for tenant_id in (tenant.id, make_tenant().id):
            with pytest.raises(operations.KeyNotFound):
                operations.revoke_key_for(
                    tenant_id=tenant_id, key_id=tenant.key.id, reason="again", actor=actor, now=utc_now()
                )
    (event,) = events_of(tenant.id)
    assert (event["action"], event["reason"]) == ("key.revoke", "Found in a paste")
    (key,) = rows_of("tenants_apikey", tenant_id=tenant.id)
    assert key["revoked_at"] is not None
