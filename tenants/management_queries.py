"""Reads of management keys: the list of them, and whom the token of a call stands for."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Q

from portal.kit.ids import PREFIXES, public_id
from portal.kit.secrets import (
    MANAGEMENT_KEY_PREFIX,
    MalformedApiKey,
    MissingSecret,
    SecretStore,
    WrongKindOfKey,
    parse_management_key,
)
from tenants.models import ManagementKey, ManagementScope, Membership, Role, Tenant, TenantState, User
from tenants.operations import OrganizationNotFound
from tenants.permissions import includes
from tenants.queries import MAX_ROWS, KeyState

LAST_USED_PRECISION = timedelta(minutes=1)


class KeyRefused(PermissionError):
    """The token opens nothing; the subclasses say why to whoever proved to have it."""


class UnknownManagementKey(KeyRefused):
    """Not a token, or of no key, or with another secret."""


class ApiKeyInstead(KeyRefused):
    """An API key, which calls models, where a management key belongs."""


class ManagementKeyRevoked(KeyRefused):
    """The key was revoked."""


class ManagementKeyExpired(KeyRefused):
    """The key has expired."""


class MakerGone(KeyRefused):
    """Whoever made the key may no longer do what it may: it has ended with their rights."""


@dataclass(frozen=True, slots=True)
class ManagementCaller:
    """Whom a management key stands for. role and tenant_id: None for an operator's key."""

    key_id: UUID
    user_id: UUID
    tenant_id: UUID | None
    role: Role | None
    scopes: frozenset[ManagementScope]
    expires_at: datetime | None

    @property
    def is_operator(self) -> bool:
        return self.tenant_id is None


@dataclass(frozen=True, slots=True)
class OrganizationFacts:
    """What programs ask about their own organization."""

    id: UUID
    name: str
    state: TenantState
    state_reason: str
    currency: str
    created_at: datetime

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.id)


@dataclass(frozen=True, slots=True)
class ManagementKeyRow:
    """A management key as its list shows it, without anything of its secret but the last characters."""

    id: UUID
    name: str
    role: Role | None
    scopes: tuple[ManagementScope, ...]
    secret_hint: str
    state: KeyState
    created_by_email: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["management_key"], self.id)

    @property
    def masked(self) -> str:
        return f"{MANAGEMENT_KEY_PREFIX}_…{self.secret_hint}"

    @property
    def is_live(self) -> bool:
        return self.state == KeyState.ACTIVE


def identify_management_key(*, token: str, secrets: SecretStore, now: datetime) -> ManagementCaller:
    """Whom the token of a call stands for, and that it was used. As auth.

    That an operator still has a second factor is asked by whoever knows of those. Errors: KeyRefused.
    """
    try:
        parsed = parse_management_key(token)
    except WrongKindOfKey:
        raise ApiKeyInstead("an API key calls models; here a management key belongs") from None
    except MalformedApiKey:
        raise UnknownManagementKey("not a management key") from None
    key = ManagementKey.objects.filter(id=parsed.key_id).first()
    if key is None or not _is_secret(key, parsed.secret, secrets):
        raise UnknownManagementKey("no such management key")
    if key.revoked_at is not None and key.revoked_at <= now:
        raise ManagementKeyRevoked("the management key was revoked")
    if key.expires_at is not None and key.expires_at <= now:
        raise ManagementKeyExpired("the management key has expired")
    if not _may_maker(key):
        raise MakerGone("whoever made the management key may no longer do what it may")
    _note_use(key, now)
    return ManagementCaller(
        key_id=key.id,
        user_id=key.created_by_id,
        tenant_id=key.tenant_id,
        role=Role(key.role) if key.role else None,
        scopes=frozenset(ManagementScope(scope) for scope in key.scopes),
        expires_at=key.expires_at,
    )


def organization_facts(*, tenant_id: UUID) -> OrganizationFacts:
    """An organization, in a scope that sees it. Errors: OrganizationNotFound."""
    tenant = Tenant.objects.filter(id=tenant_id).first()
    if tenant is None:
        raise OrganizationNotFound("no such organization")
    return OrganizationFacts(
        tenant.id,
        tenant.name,
        TenantState(tenant.state),
        tenant.state_reason,
        tenant.currency,
        tenant.created_at,
    )


def list_management_keys(*, tenant_id: UUID, now: datetime) -> list[ManagementKeyRow]:
    """An organization's management keys, newest first, at most MAX_ROWS."""
    return _rows(Q(tenant_id=tenant_id), now)


def list_operator_keys(*, now: datetime) -> list[ManagementKeyRow]:
    """All operators' keys, newest first, at most MAX_ROWS. As operator."""
    return _rows(Q(tenant=None), now)


def find_management_key(*, tenant_id: UUID | None, key_id: UUID, now: datetime) -> ManagementKeyRow | None:
    """One of them, or None. tenant_id: None for an operator's key."""
    return next(iter(_rows(Q(tenant_id=tenant_id, id=key_id), now)), None)


def _is_secret(key: ManagementKey, secret: str, secrets: SecretStore) -> bool:
    try:
        digest = secrets.digest(key.pepper_number, secret)
    except MissingSecret:
        return False
    return hmac.compare_digest(digest, bytes(key.digest))


def _may_maker(key: ManagementKey) -> bool:
    makers = User.objects.filter(id=key.created_by_id, is_active=True)
    if key.tenant_id is None:
        return makers.filter(is_staff=True).exists()
    role = (
        Membership.objects.filter(tenant_id=key.tenant_id, user_id=key.created_by_id, user__is_active=True)
        .values_list("role", flat=True)
        .first()
    )
    return role is not None and includes(role, key.role)


def _note_use(key: ManagementKey, now: datetime) -> None:
    if key.last_used_at is None or key.last_used_at <= now - LAST_USED_PRECISION:
        unnoted = Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USED_PRECISION)
        ManagementKey.objects.filter(unnoted, id=key.id).update(last_used_at=now)


def _rows(wanted: Q, now: datetime) -> list[ManagementKeyRow]:
    found: Iterable[Any] = (
        ManagementKey.objects.filter(wanted)
        .order_by("-created_at", "-id")
        .values(
            "id",
            "name",
            "role",
            "scopes",
            "secret_hint",
            "created_at",
            "expires_at",
            "revoked_at",
            "last_used_at",
            maker=F("created_by__email"),
        )[:MAX_ROWS]
    )
    return [
        ManagementKeyRow(
            id=row["id"],
            name=row["name"],
            role=Role(row["role"]) if row["role"] else None,
            scopes=tuple(ManagementScope(scope) for scope in row["scopes"]),
            secret_hint=row["secret_hint"],
            state=_state(row, now),
            created_by_email=row["maker"] or "",
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            revoked_at=row["revoked_at"],
            last_used_at=row["last_used_at"],
        )
        for row in found
    ]


def _state(row: Mapping[str, Any], now: datetime) -> KeyState:
    if row["revoked_at"] is not None and row["revoked_at"] <= now:
        return KeyState.REVOKED
    if row["expires_at"] is not None and row["expires_at"] <= now:
        return KeyState.EXPIRED
    return KeyState.ACTIVE
