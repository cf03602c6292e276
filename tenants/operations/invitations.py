"""Invitations: offered by mail, accepted by whoever has verified the address."""

import hashlib
import secrets as random_secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from tenants.models import Invitation, Membership, Role, Tenant, TenantState
from tenants.models.mail import MAX_EMAIL_LENGTH
from tenants.operations.members import require_manager
from tenants.operations.organizations import lock_tenant
from tenants.operations.outbox import OutgoingMail, enqueue_mail
from tenants.scope import scope_alias

VALID_FOR = timedelta(days=7)
# Each invitation is a mail to somebody who did not ask for one.
MAX_OPEN_PER_TENANT = 100
MAX_PER_TENANT_AND_DAY = 200
MAX_PER_ADDRESS_AND_DAY = 5
# The first wait; each is as long as all before it together, so that nobody's mailbox is filled.
RESEND_AFTER = timedelta(minutes=1)
LONGEST_RESEND_AFTER = timedelta(days=1)

# Writes the mail of an invitation around its token, which stands in no other place.
Compose = Callable[[str], OutgoingMail]


class InvalidEmail(ValueError):
    """That is no e-mail address."""


class AlreadyInvited(ValueError):
    """An invitation to this address is open; it can be sent again."""


class TooManyInvitations(ValueError):
    """The organization has as many open invitations, or has sent as many within a day, as it may: in all, or
    to this address; or the person has, in all organizations together."""


class TooSoon(ValueError):
    """The last mail of this invitation was written a moment ago, or there were many: waits grow."""


class InvitationNotFound(LookupError):
    """No open invitation is meant: it was revoked or accepted, or never was."""


class InvitationExpired(ValueError):
    """The invitation is too old; it can be sent again."""


class WrongEmail(PermissionError):
    """The invitation is for an address that is not one of the person's verified addresses."""


class AlreadyMember(ValueError):
    """The person belongs to the organization, `tenant_id`, already."""

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__("already a member")
        self.tenant_id = tenant_id


@dataclass(frozen=True, slots=True)
class Joined:
    """The organization that somebody has joined, and as what."""

    tenant_id: UUID
    role: Role


def invite_member(
    *,
    tenant_id: UUID,
    email: str,
    role: Role | str,
    actor_id: UUID,
    actor_role: Role | str,
    compose: Compose,
    now: datetime,
) -> UUID:
    """Invite an address; the mail that `compose` writes around the token goes out with the commit.

    An expired invitation of the address gives way to the new one. Answers the invitation's id.
    Errors: NotAllowed, InvalidEmail, AlreadyMember, AlreadyInvited, TooManyInvitations,
    OrganizationNotFound, InvalidMail, TooManyMails; ValueError for an unknown role.
    """
    role = Role(role)
    require_manager(actor_role, role)
    email = _checked_email(email)
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        if Membership.objects.filter(tenant_id=tenant_id, user__email=email).exists():
            raise AlreadyMember(tenant_id)
        open_ones = Invitation.objects.filter(tenant_id=tenant_id, accepted_at=None, revoked_at=None)
        if open_ones.filter(email=email, expires_at__gt=now).exists():
            raise AlreadyInvited("an invitation to this address is open")
        open_ones.filter(email=email).update(revoked_at=now)
        lately = Invitation.objects.filter(tenant_id=tenant_id, created_at__gt=now - timedelta(days=1))
        if open_ones.count() >= MAX_OPEN_PER_TENANT or lately.count() >= MAX_PER_TENANT_AND_DAY:
            raise TooManyInvitations(f"an organization has at most {MAX_OPEN_PER_TENANT} open invitations")
        if lately.filter(email=email).count() >= MAX_PER_ADDRESS_AND_DAY:
            raise TooManyInvitations(f"an address is invited at most {MAX_PER_ADDRESS_AND_DAY} times a day")
        token = _new_token()
        invitation = Invitation(
            tenant_id=tenant_id,
            email=email,
            role=role,
            token_digest=token_digest(token),
            invited_by_id=actor_id,
            created_at=now,
            mailed_at=now,
            expires_at=now + VALID_FOR,
        )
        try:
            invitation.save(force_insert=True)
        except IntegrityError as error:
            if "300 times a day" in str(error):
                raise TooManyInvitations("the person has invited as many as one may within a day") from error
            raise
        enqueue_mail(mail=compose(token), now=now, tenant_id=tenant_id)
    return invitation.id


def resend_invitation(
    *, tenant_id: UUID, invitation_id: UUID, actor_role: Role | str, compose: Compose, now: datetime
) -> None:
    """A new token for an open or expired invitation, in a new mail; the old token is worth nothing.

    Errors: NotAllowed, InvitationNotFound, TooSoon, OrganizationNotFound, InvalidMail, TooManyMails.
    """
    with transaction.atomic(using=scope_alias()):
        invitation = _open_invitation(tenant_id, invitation_id, actor_role)
        waited = max(invitation.mailed_at - invitation.created_at, RESEND_AFTER)
        if now < invitation.mailed_at + min(waited, LONGEST_RESEND_AFTER):
            raise TooSoon("the last mail was written a moment ago")
        token = _new_token()
        Invitation.objects.filter(tenant_id=tenant_id, id=invitation_id).update(
            token_digest=token_digest(token), mailed_at=now, expires_at=now + VALID_FOR
        )
        enqueue_mail(mail=compose(token), now=now, tenant_id=tenant_id)


def revoke_invitation(*, tenant_id: UUID, invitation_id: UUID, actor_role: Role | str, now: datetime) -> None:
    """Take an invitation back. Errors: NotAllowed, InvitationNotFound, OrganizationNotFound."""
    with transaction.atomic(using=scope_alias()):
        _open_invitation(tenant_id, invitation_id, actor_role)
        Invitation.objects.filter(tenant_id=tenant_id, id=invitation_id).update(revoked_at=now)


def accept_invitation(
    *, token: str, user_id: UUID, verified_emails: Collection[str], now: datetime
) -> Joined:
    """Join the organization of an invitation, once. Runs under the auth role, which alone may.

    verified_emails: the addresses that the person has proven to have; the invited one must be among them.
    Errors: InvitationNotFound, InvitationExpired, WrongEmail, AlreadyMember.
    """
    with transaction.atomic(using=scope_alias()):
        invitation = (
            Invitation.objects.select_for_update(no_key=True)
            .filter(token_digest=token_digest(token), revoked_at=None, accepted_at=None)
            .first()
        )
        if invitation is None or _is_closed(invitation.tenant_id):
            raise InvitationNotFound("no such invitation")
        if invitation.expires_at <= now:
            raise InvitationExpired("the invitation is too old")
        if invitation.email not in {address.strip().lower() for address in verified_emails}:
            raise WrongEmail("the invitation is for another address")
        try:
            with transaction.atomic(using=scope_alias()):
                Membership.objects.create(
                    tenant_id=invitation.tenant_id, user_id=user_id, role=invitation.role
                )
        except IntegrityError as error:
            if "membership_once" in str(error):
                raise AlreadyMember(invitation.tenant_id) from error
            raise
        Invitation.objects.filter(id=invitation.id).update(accepted_at=now, accepted_by_id=user_id)
    return Joined(invitation.tenant_id, Role(invitation.role))


def token_digest(token: str) -> bytes:
    """SHA-256 of a token. It holds 256 random bits, so that it needs no pepper."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _new_token() -> str:
    return random_secrets.token_urlsafe(32)


def _open_invitation(tenant_id: UUID, invitation_id: UUID, actor_role: Role | str) -> Invitation:
    """Locked; whoever may not make an owner can neither renew nor take back an owner's invitation."""
    require_manager(actor_role)
    lock_tenant(tenant_id)
    invitation = (
        Invitation.objects.select_for_update(no_key=True)
        .filter(tenant_id=tenant_id, id=invitation_id, revoked_at=None, accepted_at=None)
        .first()
    )
    if invitation is None:
        raise InvitationNotFound("no such invitation")
    require_manager(actor_role, Role(invitation.role))
    return invitation


def _is_closed(tenant_id: UUID) -> bool:
    return Tenant.objects.filter(id=tenant_id, state=TenantState.CLOSED).exists()


def _checked_email(email: str) -> str:
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError as error:
        raise InvalidEmail("that is no e-mail address") from error
    if len(email) > MAX_EMAIL_LENGTH:
        raise InvalidEmail(f"an e-mail address has at most {MAX_EMAIL_LENGTH} characters")
    return email
