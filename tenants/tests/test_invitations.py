"""Invitations: by mail, with a token that stands nowhere else, for whoever has verified the address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants import operations, queries
from tenants.models import Invitation, Membership, Role, TenantState
from tenants.operations import OutgoingMail
from tenants.operations.invitations import MAX_PER_ADDRESS_AND_DAY
from tenants.scope import role_scope, tenant_scope
from tenants.tests.people import add_member, at_once, make_organization, make_user
from tests.database import connected, rows_of
from tests.factories import make_tenant, set_state

pytestmark = pytest.mark.usefixtures("database")


def letter(tokens: list[str], email: str) -> Callable[[str], OutgoingMail]:
    """What a door does with a token: it writes the mail around it."""

    def compose(token: str) -> OutgoingMail:
        tokens.append(token)
        return OutgoingMail(email, "You are invited", f"Open /invitations/{token}")

    return compose


def new_address() -> str:
    return f"{uuid7().hex}@invited.example"


def invite(
    owner: Membership,
    email: str,
    *,
    role: Role = Role.DEVELOPER,
    actor_role: Role = Role.OWNER,
    now: datetime | None = None,
) -> tuple[UUID, str]:
    tokens: list[str] = []
    with tenant_scope(owner.tenant_id):
        invitation_id = operations.invite_member(
            tenant_id=owner.tenant_id,
            email=email,
            role=role,
            actor_id=owner.user_id,
            actor_role=actor_role,
            compose=letter(tokens, email.strip()),
            now=now or utc_now(),
        )
    return invitation_id, tokens[0]


def accept(token: str, user_id: UUID, *emails: str, now: datetime | None = None) -> operations.Joined:
    with role_scope("auth"):
        return operations.accept_invitation(
            token=token, user_id=user_id, verified_emails=emails, now=now or utc_now()
        )


def test_an_invitation_travels_by_mail_and_makes_a_member() -> None:
    tenant, owner = make_organization()
    email = new_address()
    invitation_id, token = invite(owner, f" {email.upper()} ", role=Role.BILLING)
    (mail,) = rows_of("tenants_outboxmessage", role="dataplane", tenant_id=tenant.id)
    assert token in mail["text_body"]
    (row,) = rows_of("tenants_invitation", id=invitation_id)
    assert (row["email"], row["invited_by_id"]) == (email, owner.user_id)
    assert token not in str(row)
    assert row["expires_at"] - row["created_at"] == timedelta(days=7)
    with role_scope("auth"):
        offer = queries.find_invitation(token=token, now=utc_now())
    assert offer is not None
    assert (offer.tenant_id, offer.email, offer.role, offer.is_expired) == (
        tenant.id,
        email,
        Role.BILLING,
        False,
    )
    user = make_user(email)
    joined = accept(token, user.id, "other@people.example", email.title())
    assert (joined.tenant_id, joined.role) == (tenant.id, Role.BILLING)
    (membership,) = rows_of("tenants_membership", tenant_id=tenant.id, user_id=user.id)
    assert membership["role"] == "BILLING"
    with role_scope("auth"):
        assert queries.find_invitation(token=token, now=utc_now()) is None
    with pytest.raises(operations.InvitationNotFound):
        accept(token, user.id, email)


def test_the_list_shows_open_ones_and_whether_they_are_too_old() -> None:
    tenant, owner = make_organization()
    old, _ = invite(owner, new_address(), now=utc_now() - timedelta(days=8))
    fresh, _ = invite(owner, new_address())
    revoked, _ = invite(owner, new_address())
    with tenant_scope(tenant.id):
        operations.revoke_invitation(
            tenant_id=tenant.id, invitation_id=revoked, actor_role=Role.OWNER, now=utc_now()
        )
        rows = queries.list_invitations(tenant_id=tenant.id, now=utc_now())
    assert [(row.id, row.is_expired) for row in rows] == [(fresh, False), (old, True)]
    assert rows[0].invited_by_email == owner.user.email


def test_only_the_invited_address_lets_in() -> None:
    _, owner = make_organization()
    _, token = invite(owner, new_address())
    user = make_user()
    for emails in ((), (user.email,)):
        with pytest.raises(operations.WrongEmail):
            accept(token, user.id, *emails)
    with pytest.raises(operations.InvitationNotFound):
        accept("not-a-token", user.id, user.email)


def test_an_invitation_ends_after_a_week() -> None:
    _, owner = make_organization()
    email = new_address()
    _, token = invite(owner, email, now=utc_now() - timedelta(days=7))
    with pytest.raises(operations.InvitationExpired):
        accept(token, make_user(email).id, email)
    # The address can be invited anew.
    _, newer = invite(owner, email)
    assert newer != token


def test_a_member_is_neither_invited_nor_admitted_again() -> None:
    tenant, owner = make_organization()
    member = add_member(tenant.id)
    with pytest.raises(operations.AlreadyMember) as caught:
        invite(owner, member.user.email)
    assert caught.value.tenant_id == tenant.id
    # By another verified address they come to the same membership.
    email = new_address()
    _, token = invite(owner, email)
    with pytest.raises(operations.AlreadyMember):
        accept(token, member.user_id, email)


def test_an_address_is_invited_once() -> None:
    tenant, owner = make_organization()
    email = new_address()
    invite(owner, email)
    with pytest.raises(operations.AlreadyInvited):
        invite(owner, email.upper())
    _, others_owner = make_organization()
    invite(others_owner, email)
    assert len(rows_of("tenants_invitation", email=email)) == 2
    # Nobody sees the other's.
    with tenant_scope(tenant.id):
        assert {row.tenant_id for row in Invitation.objects.filter(email=email)} == {tenant.id}


def test_invitations_at_once_make_one() -> None:
    tenant, owner = make_organization()
    email = new_address()
    answers = at_once([partial(invite, owner, email)] * 4)
    assert sorted(type(answer).__name__ for answer in answers) == ["AlreadyInvited"] * 3 + ["tuple"]
    assert len(rows_of("tenants_outboxmessage", role="dataplane", tenant_id=tenant.id)) == 1


def test_an_invitation_is_accepted_once_by_whoever_comes_first() -> None:
    tenant, owner = make_organization()
    email = new_address()
    _, token = invite(owner, email)
    users = [make_user() for _ in range(4)]
    answers = at_once([partial(accept, token, user.id, email) for user in users])
    assert sorted(type(answer).__name__ for answer in answers) == ["InvitationNotFound"] * 3 + ["Joined"]
    assert len(rows_of("tenants_membership", tenant_id=tenant.id)) == 2


def test_sent_again_it_has_another_token() -> None:
    tenant, owner = make_organization()
    email, tokens = new_address(), list[str]()
    invitation_id, old = invite(owner, email, now=utc_now() - timedelta(days=8))
    resend: Callable[..., None] = partial(
        operations.resend_invitation,
        tenant_id=tenant.id,
        invitation_id=invitation_id,
        compose=letter(tokens, email),
        now=utc_now(),
    )
    with tenant_scope(tenant.id):
        with pytest.raises(operations.NotAllowed):
            resend(actor_role=Role.DEVELOPER)
        resend(actor_role=Role.ADMIN)
        with pytest.raises(operations.TooSoon):
            resend(actor_role=Role.ADMIN)
    user = make_user(email)
    with pytest.raises(operations.InvitationNotFound):
        accept(old, user.id, email)
    assert accept(tokens[0], user.id, email).tenant_id == tenant.id


def test_a_revoked_invitation_is_worth_nothing() -> None:
    tenant, owner = make_organization()
    email = new_address()
    invitation_id, token = invite(owner, email)
    revoke = partial(
        operations.revoke_invitation, tenant_id=tenant.id, invitation_id=invitation_id, now=utc_now()
    )
    with tenant_scope(tenant.id):
        revoke(actor_role=Role.ADMIN)
        with pytest.raises(operations.InvitationNotFound):
            revoke(actor_role=Role.ADMIN)
    with pytest.raises(operations.InvitationNotFound):
        accept(token, make_user(email).id, email)
    stranger, _ = make_organization()
    with tenant_scope(stranger.id), pytest.raises(operations.OrganizationNotFound):
        revoke(actor_role=Role.OWNER)


@pytest.mark.parametrize(
    ("actor", "role", "is_allowed"),
    [
        (Role.OWNER, Role.OWNER, True),
        (Role.ADMIN, Role.OWNER, False),
        (Role.ADMIN, Role.ADMIN, True),
        (Role.DEVELOPER, Role.VIEWER, False),
        (Role.BILLING, Role.VIEWER, False),
        (Role.VIEWER, Role.VIEWER, False),
    ],
)
def test_who_may_invite_whom(actor: Role, role: Role, is_allowed: bool) -> None:
    _, owner = make_organization()
    if is_allowed:
        invite(owner, new_address(), role=role, actor_role=actor)
    else:
        with pytest.raises(operations.NotAllowed):
            invite(owner, new_address(), role=role, actor_role=actor)


def test_an_owners_invitation_is_an_owners_to_take_back() -> None:
    tenant, owner = make_organization()
    invitation_id, _ = invite(owner, new_address(), role=Role.OWNER)
    with tenant_scope(tenant.id), pytest.raises(operations.NotAllowed):
        operations.revoke_invitation(
            tenant_id=tenant.id, invitation_id=invitation_id, actor_role=Role.ADMIN, now=utc_now()
        )


@pytest.mark.parametrize("wrong", ["", "nobody", "a@b", "a b@c.example", "x" * 250 + "@c.example"])
def test_an_invitation_goes_to_an_address(wrong: str) -> None:
    _, owner = make_organization()
    with pytest.raises(operations.InvalidEmail):
        invite(owner, wrong)


def test_an_organization_has_a_bounded_number_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _, owner = make_organization()
    monkeypatch.setattr("tenants.operations.invitations.MAX_OPEN_PER_TENANT", 2)
    invite(owner, new_address())
    invite(owner, new_address())
    with pytest.raises(operations.TooManyInvitations):
        invite(owner, new_address())


def test_a_person_invites_so_many_a_day_in_all_organizations_together() -> None:
    _, owner = make_organization()
    tenant = make_tenant(granted=None)
    second = add_member(tenant.id, Role.OWNER, owner.user)
    with connected("owner") as connection:
        connection.execute(
            "INSERT INTO tenants_invitation (id, tenant_id, email, role, token_digest, invited_by_id, "
            "created_at, mailed_at, expires_at) SELECT gen_random_uuid(), %s, n || '@b.example', 'VIEWER', "
            "sha256(gen_random_uuid()::text::bytea), %s, now(), now(), now() + interval '7 days' "
            "FROM generate_series(1, 299) n",
            (owner.tenant_id, owner.user_id),
        )
    invite(second, new_address())
    with pytest.raises(operations.TooManyInvitations):
        invite(second, new_address())
    invite(add_member(tenant.id, Role.OWNER), new_address())


def test_a_failing_mail_leaves_no_invitation() -> None:
    tenant, owner = make_organization()
    with pytest.raises(operations.InvalidMail), tenant_scope(tenant.id):
        operations.invite_member(
            tenant_id=tenant.id,
            email=new_address(),
            role=Role.VIEWER,
            actor_id=owner.user_id,
            actor_role=Role.OWNER,
            compose=lambda token: OutgoingMail(new_address(), "two\nlines", token),
            now=utc_now(),
        )
    assert rows_of("tenants_invitation", tenant_id=tenant.id) == []


def test_a_closed_organization_lets_nobody_in() -> None:
    tenant, owner = make_organization()
    email = new_address()
    _, token = invite(owner, email)
    set_state(tenant.id, TenantState.CLOSED)
    with role_scope("auth"):
        assert queries.find_invitation(token=token, now=utc_now()) is None
    with pytest.raises(operations.InvitationNotFound):
        accept(token, make_user(email).id, email)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("role = 'OWNER'", psycopg.errors.RestrictViolation),
        ("email = 'other@people.example'", psycopg.errors.RestrictViolation),
        ("email = 'Capital@people.example'", psycopg.errors.IntegrityError),
        ("accepted_at = now()", psycopg.errors.CheckViolation),
        ("expires_at = mailed_at", psycopg.errors.CheckViolation),
    ],
)
def test_the_database_keeps_an_offer_as_it_is(change: str, error: type[psycopg.Error]) -> None:
    _, owner = make_organization()
    invitation_id, _ = invite(owner, new_address())
    with connected("owner") as connection, pytest.raises(error):
        connection.execute(f"UPDATE tenants_invitation SET {change} WHERE id = %s", (invitation_id,))


def test_an_organization_cannot_accept_for_others() -> None:
    """Or it would choose by itself whose name it reads."""
    tenant, owner = make_organization()
    invitation_id, _ = invite(owner, new_address())
    values: dict[str, Any] = {"id": invitation_id, "user": owner.user_id}
    with connected("tenant", autocommit=False) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant.id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "UPDATE tenants_invitation SET accepted_at = now(), accepted_by_id = %(user)s "
                "WHERE id = %(id)s",
                values,
            )


def test_whoever_was_invited_is_not_flooded_with_mail() -> None:
    """Sent again, the next mail waits twice as long, up to a day; and a new invitation is a mail as well."""
    tenant, owner = make_organization()
    email, tokens = new_address(), list[str]()
    began = utc_now() - timedelta(days=1)
    invitation_id, _ = invite(owner, email, now=began)
    with tenant_scope(tenant.id):
        for minute in range(1, 24 * 60):
            with suppress(operations.TooSoon):
                operations.resend_invitation(
                    tenant_id=tenant.id,
                    invitation_id=invitation_id,
                    actor_role=Role.ADMIN,
                    compose=letter(tokens, email),
                    now=began + timedelta(minutes=minute),
                )
    assert 5 <= len(tokens) <= 12
    for _ in range(MAX_PER_ADDRESS_AND_DAY - 1):
        with tenant_scope(tenant.id):
            operations.revoke_invitation(
                tenant_id=tenant.id, invitation_id=invitation_id, actor_role=Role.ADMIN, now=utc_now()
            )
        invitation_id, _ = invite(owner, email, now=began + timedelta(hours=1))
    with tenant_scope(tenant.id):
        operations.revoke_invitation(
            tenant_id=tenant.id, invitation_id=invitation_id, actor_role=Role.ADMIN, now=utc_now()
        )
    with pytest.raises(operations.TooManyInvitations):
        invite(owner, email, now=began + timedelta(hours=2))
    invite(owner, new_address(), now=began + timedelta(hours=2))


def test_who_was_removed_has_no_invitation_to_come_back_by() -> None:
    tenant, owner = make_organization()
    admin = add_member(tenant.id, Role.ADMIN)
    for_self, of_owner = new_address(), new_address()
    _, back_door = invite(admin, for_self, role=Role.ADMIN, actor_role=Role.ADMIN)
    _, other = invite(owner, of_owner)
    with tenant_scope(tenant.id):
        operations.remove_member(
            tenant_id=tenant.id, membership_id=admin.id, actor_role=Role.OWNER, now=utc_now()
        )
    with pytest.raises(operations.InvitationNotFound):
        accept(back_door, make_user(for_self).id, for_self)
    assert accept(other, make_user(of_owner).id, of_owner).tenant_id == tenant.id


@pytest.mark.parametrize(
    ("role", "becomes", "stays"),
    [
        (Role.OWNER, Role.ADMIN, {Role.VIEWER}),
        (Role.OWNER, Role.VIEWER, set()),
        (Role.ADMIN, Role.OWNER, {Role.VIEWER}),
    ],
)
def test_invitations_are_worth_what_their_writer_may_still_give(
    role: Role, becomes: Role, stays: set[Role]
) -> None:
    tenant, _ = make_organization()
    member = add_member(tenant.id, role)
    offered = (Role.OWNER, Role.VIEWER) if role == Role.OWNER else (Role.VIEWER,)
    for offer in offered:
        invite(member, new_address(), role=offer, actor_role=role)
    with tenant_scope(tenant.id):
        operations.change_role(
            tenant_id=tenant.id, membership_id=member.id, role=becomes, actor_role=Role.OWNER, now=utc_now()
        )
        left = queries.list_invitations(tenant_id=tenant.id, now=utc_now())
    assert {row.role for row in left} == stays
