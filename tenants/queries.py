"""Reads: organizations, keys, members, invitations, terms and mail. The caller opens a scope that may."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Case, F, Q, QuerySet, Value, When

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from portal.kit.secrets import API_KEY_PREFIX
from tenants.models import (
    ApiKey,
    Invitation,
    KeyPurpose,
    Membership,
    OutboxMessage,
    Role,
    Tenant,
    TenantState,
    TermsAcceptance,
)
from tenants.operations.invitations import token_digest
from tenants.scope import scope_alias
from tenants.search import search_tenants as search_tenants

MAX_FOUND = 50
MAX_ROWS = 1000
# Owners stand first, then as the roles are written down.
_BY_ROLE = Case(*(When(role=role, then=Value(rank)) for rank, role in enumerate(Role.values)))


@dataclass(frozen=True, slots=True)
class TenantName:
    id: UUID
    name: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.id)


class KeyState(StrEnum):
    """What a call with the key would meet; a replaced key works until it expires."""

    ACTIVE = "ACTIVE"
    REPLACED = "REPLACED"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as its organization sees it, without anything of its secret but the last characters.

    created_by_email: empty when nobody is known, or no member any more. last_used_at is None until
    somebody writes it: ask the usage of the key instead.
    """

    id: UUID
    purpose: KeyPurpose
    name: str
    secret_hint: str
    labels: Mapping[str, str]
    state: KeyState
    created_by_email: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    restricts_models: bool

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["api_key"], self.id)

    @property
    def masked(self) -> str:
        """How a token of this key begins and ends; for the playground's keys, which have none, empty."""
        return f"{API_KEY_PREFIX}_…{self.secret_hint}" if self.secret_hint else ""

    @property
    def is_live(self) -> bool:
        return self.state in (KeyState.ACTIVE, KeyState.REPLACED)


@dataclass(frozen=True, slots=True)
class MemberRow:
    membership_id: UUID
    user_id: UUID
    email: str
    full_name: str
    role: Role
    joined_at: datetime

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["membership"], self.membership_id)


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An open invitation; an expired one can be sent again. invited_by_email: empty when they have left."""

    id: UUID
    email: str
    role: Role
    invited_by_email: str
    created_at: datetime
    mailed_at: datetime
    expires_at: datetime
    is_expired: bool

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["invitation"], self.id)


@dataclass(frozen=True, slots=True)
class InvitationOffer:
    """What somebody with the token of an open invitation may know about it."""

    tenant_id: UUID
    organization: str
    email: str
    role: Role
    expires_at: datetime
    is_expired: bool


@dataclass(frozen=True, slots=True)
class MailRow:
    """A mail in the outbox, as the mailbox of a development instance shows it."""

    id: UUID
    to_email: str
    subject: str
    text_body: str = field(repr=False)
    html_body: str = field(repr=False)
    created_at: datetime
    sent_at: datetime | None
    last_error: str


def find_tenants(*, text: str) -> list[TenantName]:
    """Organizations with this public id, name, or e-mail address of a member; at most MAX_FOUND, oldest
    first. An empty text finds all."""
    wanted = Q()
    if text:
        wanted = Q(name=text) | Q(memberships__user__email=text.lower())
        with contextlib.suppress(InvalidPublicId):
            wanted |= Q(id=parse_public_id(PREFIXES["organization"], text))
    found = Tenant.objects.filter(wanted).distinct().order_by("id")[:MAX_FOUND]
    return [TenantName(tenant.id, tenant.name) for tenant in found]


def list_api_keys(*, tenant_id: UUID, now: datetime, with_playground: bool = False) -> list[KeyRow]:
    """An organization's keys, newest first, at most MAX_ROWS.

    with_playground: also the keys through which members chat, for naming them in usage.
    """
    keys = ApiKey.objects.filter(tenant_id=tenant_id)
    if not with_playground:
        keys = keys.filter(purpose=KeyPurpose.API)
    return [_key_row(row, now) for row in _key_values(keys.order_by("-created_at", "-id")[:MAX_ROWS])]


def find_api_key(*, tenant_id: UUID, key_id: UUID, now: datetime) -> KeyRow | None:
    """One key of a program, or None."""
    keys = ApiKey.objects.filter(tenant_id=tenant_id, id=key_id, purpose=KeyPurpose.API)
    return next((_key_row(row, now) for row in _key_values(keys)), None)


def list_members(*, tenant_id: UUID) -> list[MemberRow]:
    """Everybody in an organization, owners first, at most MAX_ROWS."""
    members = Membership.objects.select_related("user").filter(tenant_id=tenant_id)
    return [
        MemberRow(
            member.id,
            member.user_id,
            member.user.email,
            member.user.full_name,
            Role(member.role),
            member.created_at,
        )
        for member in members.only(
            "role", "created_at", "tenant_id", "user__email", "user__full_name"
        ).order_by(_BY_ROLE, "user__email")[:MAX_ROWS]
    ]


def list_invitations(*, tenant_id: UUID, now: datetime) -> list[InvitationRow]:
    """The open invitations of an organization, expired ones too, newest first."""
    rows = (
        Invitation.objects.filter(tenant_id=tenant_id, accepted_at=None, revoked_at=None)
        .order_by("-created_at")
        .values(
            "id", "email", "role", "created_at", "mailed_at", "expires_at", inviter=F("invited_by__email")
        )[:MAX_ROWS]
    )
    return [
        InvitationRow(
            id=row["id"],
            email=row["email"],
            role=Role(row["role"]),
            invited_by_email=row["inviter"] or "",
            created_at=row["created_at"],
            mailed_at=row["mailed_at"],
            expires_at=row["expires_at"],
            is_expired=row["expires_at"] <= now,
        )
        for row in rows
    ]


def find_invitation(*, token: str, now: datetime) -> InvitationOffer | None:
    """The open invitation with this token; None when it was revoked or accepted, or never was. As auth."""
    invitation = (
        Invitation.objects.select_related("tenant")
        .filter(token_digest=token_digest(token), accepted_at=None, revoked_at=None)
        .exclude(tenant__state=TenantState.CLOSED)
        .first()
    )
    if invitation is None:
        return None
    return InvitationOffer(
        tenant_id=invitation.tenant_id,
        organization=invitation.tenant.name,
        email=invitation.email,
        role=Role(invitation.role),
        expires_at=invitation.expires_at,
        is_expired=invitation.expires_at <= now,
    )


def has_accepted(*, user_id: UUID, version: str) -> bool:
    """Whether a person has accepted this version of the terms. As auth or operator."""
    return TermsAcceptance.objects.filter(user_id=user_id, version=version).exists()


def owes_terms(*, user_id: UUID, version: str) -> bool:
    """Whether a person has accepted terms, but not this version. People whom a command of the installation
    made have accepted none: they belong to the company that runs it. As auth or operator."""
    accepted = set(TermsAcceptance.objects.filter(user_id=user_id).values_list("version", flat=True))
    return bool(accepted) and version not in accepted


def list_mail(*, limit: int = 50, to_email: str | None = None) -> list[MailRow]:
    """The newest mails of the outbox, for the mailbox of a development instance. As auth."""
    messages = OutboxMessage.objects.order_by("-created_at", "-id")
    if to_email is not None:
        messages = messages.filter(to_email__iexact=to_email)
    return [
        MailRow(
            message.id,
            message.to_email,
            message.subject,
            message.text_body,
            message.html_body,
            message.created_at,
            message.sent_at,
            message.last_error,
        )
        for message in messages[:limit]
    ]


def database_time() -> datetime:
    """The clock that all processes share: leases are measured by it."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment


def _key_values(keys: QuerySet[ApiKey]) -> Any:
    return keys.values(
        "id",
        "purpose",
        "name",
        "secret_hint",
        "labels",
        "created_at",
        "last_used_at",
        "expires_at",
        "revoked_at",
        "restricts_models",
        creator=F("created_by__email"),
        successor=F("rotated_to__id"),
    )


def _key_row(row: Mapping[str, Any], now: datetime) -> KeyRow:
    return KeyRow(
        id=row["id"],
        purpose=KeyPurpose(row["purpose"]),
        name=row["name"],
        secret_hint=row["secret_hint"],
        labels=row["labels"],
        state=_key_state(row, now),
        created_by_email=row["creator"] or "",
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        restricts_models=row["restricts_models"],
    )


def _key_state(row: Mapping[str, Any], now: datetime) -> KeyState:
    if row["revoked_at"] is not None and row["revoked_at"] <= now:
        return KeyState.REVOKED
    if row["expires_at"] is not None and row["expires_at"] <= now:
        return KeyState.EXPIRED
    return KeyState.ACTIVE if row["successor"] is None else KeyState.REPLACED
