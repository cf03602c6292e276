"""Invitations: for newcomers, for people with an account, and for whoever is signed in as somebody else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from allauth.account.models import EmailAddress
from django.contrib.sessions.models import Session
from django.test import override_settings
from django.urls import reverse

from portal.accounts.tests.visitor import (
    MARKER,
    confirm,
    new_address,
    new_client,
    sign_in,
    sign_up,
    told,
    user_of,
    verified_user,
)
from portal.kit.clock import utc_now
from portal.pages.access import organizations_of
from quotas.models import WelcomeGrant
from tenants import operations
from tenants.models import Invitation, Role, TermsAcceptance, User
from tenants.scope import role_scope
from tests.factories import make_tenant

pytestmark = pytest.mark.usefixtures("database")


def _invite(email: str, *, role: Role = Role.DEVELOPER, age: timedelta = timedelta()) -> tuple[UUID, str]:
    """The organization and the token of a new invitation."""
    tenant, owner = make_tenant(), verified_user()
    tokens: list[str] = []

    def compose(token: str) -> operations.OutgoingMail:
        tokens.append(token)
        return operations.OutgoingMail(email, "Come in", token)

    with role_scope("operator"):
        operations.invite_member(
            tenant_id=tenant.id,
            email=email,
            role=role,
            actor_id=owner.id,
            actor_role=Role.OWNER,
            compose=compose,
            now=utc_now() - age,
        )
    return tenant.id, tokens[0]


def _path(token: str) -> str:
    return reverse("accounts:invitation", args=[token])


def test_a_newcomer_joins_with_the_invited_address_and_opens_no_organization() -> None:
    email, client = new_address(), new_client()
    tenant_id, token = _invite(email)
    page = client.get(_path(token))
    # Not "no-referrer": browsers then send no origin with the form, and it would be refused.
    assert page["referrer-policy"] == "same-origin"
    assert client.post(_path(token), {"action": "signup"})["location"] == reverse("account_signup")
    page = client.get(reverse("account_signup"))
    assert email in page.content.decode()
    assert b'name="organization"' not in page.content
    # The token is not readable where sessions are kept.
    assert token not in str(Session.objects.get(session_key=client.session.session_key).get_decoded())

    answer = sign_up(client, "somebody.else@elsewhere.example", organization=None, currency=None)

    assert answer["location"] == "/o/", "the link was sent to the address, so it is verified"
    user = user_of(email)
    assert client.session["_auth_user_id"] == str(user.id)
    assert "You are now a member of" in told(client.get(reverse("accounts:settings")))
    assert EmailAddress.objects.get(user=user, email=email).verified
    (organization,) = organizations_of(user.id)
    assert (organization.tenant_id, organization.role) == (tenant_id, Role.DEVELOPER)
    with role_scope("operator"):
        assert TermsAcceptance.objects.filter(user=user).exists()
        assert not WelcomeGrant.objects.filter(user=user).exists()
    assert new_client().get(_path(token)).status_code == 410


def test_an_invitation_opens_a_closed_sign_up() -> None:
    email, client = new_address(), new_client()
    _, token = _invite(email)
    with override_settings(SIGNUP="invitation"):
        client.post(_path(token), {"action": "signup"})
        assert sign_up(client, email, organization=None, currency=None)["location"] == "/o/"


def test_who_has_an_account_accepts_at_the_page() -> None:
    user, client = verified_user(), new_client()
    tenant_id, token = _invite(user.email, role=Role.BILLING)
    sign_in(client, user.email)
    assert "Billing" in told(client.get(_path(token)))
    assert not organizations_of(user.id), "looking joins nothing"
    client.post(_path(token), {"action": "accept"})
    (organization,) = organizations_of(user.id)
    assert (organization.tenant_id, organization.role) == (tenant_id, Role.BILLING)


def test_declining_joins_nothing() -> None:
    user, client = verified_user(), new_client()
    _, token = _invite(user.email)
    sign_in(client, user.email)
    client.post(_path(token), {"action": "decline"})
    assert not organizations_of(user.id)


def test_another_account_is_told_whom_it_is_for_and_can_switch() -> None:
    invited, client = new_address(), new_client()
    stranger = verified_user()
    _, token = _invite(invited)
    sign_in(client, stranger.email)
    page = client.get(_path(token))
    assert invited in told(page)
    assert "Switch account" in told(page)
    assert client.post(_path(token), {"action": "accept"}).status_code == 403
    assert not organizations_of(stranger.id)
    answer = client.post(reverse("account_logout"), {"next": _path(token)})
    assert answer["location"] == _path(token)
    assert "Create an account" in told(client.get(_path(token)))


def test_an_address_that_is_not_verified_accepts_nothing() -> None:
    # Somebody signed up with the address of somebody else and waits for an invitation to come.
    email, client = new_address(), new_client()
    sign_up(client, email)
    _, token = _invite(email)
    assert sign_in(client, email)["location"] == reverse("account_email_verification_sent")
    client.post(_path(token), {"action": "accept"})
    assert len(organizations_of(user_of(email).id)) == 1
    confirm(client, email)
    client.post(_path(token), {"action": "accept"})
    assert len(organizations_of(user_of(email).id)) == 2


@pytest.mark.parametrize("kind", ["old", "unknown"])
def test_what_is_over_or_never_was_looks_the_same(kind: str) -> None:
    _, token = _invite(new_address(), age=timedelta(days=8))
    answer = new_client().get(_path(token if kind == "old" else "x" * 43))
    assert answer.status_code == 410
    assert MARKER in answer.content


def test_an_invitation_that_ends_between_two_pages_is_answered_kindly() -> None:
    email, client = new_address(), new_client()
    tenant_id, token = _invite(email)
    client.post(_path(token), {"action": "signup"})
    with role_scope("operator"):
        invitation_id = Invitation.objects.get(tenant_id=tenant_id, email=email).id
        operations.revoke_invitation(
            tenant_id=tenant_id, invitation_id=invitation_id, actor_role=Role.OWNER, now=utc_now()
        )
    answer = sign_up(client, email, organization=None, currency=None)
    assert answer.status_code == 200, "the form of a sign-up without invitation, with its fields to fill in"
    assert b'name="organization"' in answer.content


def test_an_invitation_that_ends_while_the_form_is_sent_makes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    email, client = new_address(), new_client()
    tenant_id, token = _invite(email)
    client.post(_path(token), {"action": "signup"})
    with role_scope("operator"):
        invitation_id = Invitation.objects.get(tenant_id=tenant_id, email=email).id
    accept = operations.accept_invitation

    def revoked_meanwhile(**arguments: Any) -> Any:
        with role_scope("operator"):
            operations.revoke_invitation(
                tenant_id=tenant_id, invitation_id=invitation_id, actor_role=Role.OWNER, now=utc_now()
            )
        return accept(**arguments)

    monkeypatch.setattr(operations, "accept_invitation", revoked_meanwhile)
    answer = sign_up(client, email, organization=None, currency=None)
    assert "ended in this moment" in told(answer)
    assert not User.objects.filter(email=email).exists()
    assert "_auth_user_id" not in client.session
