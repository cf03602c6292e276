"""Management keys: made, revoked, ended with their maker's rights; and writes that happen once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import OperationalError, connections, transaction
from django.db.models import Q
from psycopg.errors import LockNotAvailable

from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.secrets import SecretStore, new_management_key
from tenants.models import (
    MAX_OPERATOR_KEY_DAYS,
    OPERATOR_SCOPES,
    TENANT_SCOPES,
    IdempotentWrite,
    ManagementKey,
    ManagementScope,
    Membership,
    Role,
    User,
)
from tenants.operations import audit
from tenants.permissions import Permission, includes, may
from tenants.scope import scope_alias

MAX_MANAGEMENT_KEYS: Final = 50
"""Live ones of an organization, and of each operator."""
KEPT_WRITES: Final = timedelta(hours=48)
WRITE_WAIT_MS: Final = 5_000


class InvalidManagementKey(ValueError):
    """Name, scopes or expiry of a management key are not acceptable; the message says which."""


class TooManyManagementKeys(ValueError):
    """There are as many live management keys as there may be."""


class ManagementKeyNotFound(LookupError):
    """No such management key in this scope."""


class RoleTooHigh(PermissionError):
    """Nobody makes a key that may do more than they may, and only some may make keys at all."""


class WriteConflict(ValueError):
    """The idempotency key was used for another request."""


class WriteInProgress(RuntimeError):
    """A request with the same idempotency key is still under way."""


@dataclass(frozen=True, slots=True)
class IssuedManagementKey:
    """A new key. The token is known to nobody afterwards: show it once."""

    id: UUID
    token: str = field(repr=False)

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["management_key"], self.id)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a write was answered with: the HTTP status and the body's text."""

    status: int
    body: str = field(repr=False)


def create_management_key(
    *,
    tenant_id: UUID,
    name: str,
    role: Role,
    scopes: Collection[ManagementScope],
    expires_at: datetime | None,
    actor: audit.Actor,
    secrets: SecretStore,
    now: datetime,
) -> IssuedManagementKey:
    """A key of an organization, in the name of a member who may do at least as much as it.

    Errors: InvalidManagementKey, RoleTooHigh, TooManyManagementKeys.
    """
    maker_id = _person(actor)
    if expires_at is not None and expires_at <= now:
        raise InvalidManagementKey("a key's expiry lies in the future")
    with transaction.atomic(using=scope_alias()):
        # Whoever removes or demotes the member waits for this lock, or we for them.
        members = Membership.objects.select_for_update(no_key=True, of=("self",))
        maker = members.filter(tenant_id=tenant_id, user_id=maker_id).first()
        if maker is None or not may(maker.role, Permission.MANAGE_MANAGEMENT_KEYS):
            raise RoleTooHigh("this role may make no management keys")
        if not includes(maker.role, role):
            raise RoleTooHigh("a key may do no more than whoever makes it")
        live = ManagementKey.objects.filter(tenant_id=tenant_id, revoked_at=None)
        if live.count() >= MAX_MANAGEMENT_KEYS:
            raise TooManyManagementKeys(f"an organization has at most {MAX_MANAGEMENT_KEYS} management keys")
        return _issue(
            tenant_id=tenant_id,
            name=name,
            role=role.value,
            scopes=_checked_scopes(scopes, TENANT_SCOPES),
            expires_at=expires_at,
            actor=actor,
            secrets=secrets,
            now=now,
        )


def create_operator_key(
    *,
    name: str,
    scopes: Collection[ManagementScope],
    expires_at: datetime,
    actor: audit.Actor,
    reason: str,
    secrets: SecretStore,
    now: datetime,
) -> IssuedManagementKey:
    """A key that acts as an operator, for at most MAX_OPERATOR_KEY_DAYS. As operator.

    Errors: InvalidManagementKey, RoleTooHigh, TooManyManagementKeys, audit.ReasonMissing.
    """
    maker_id, reason = _person(actor), audit.checked_reason(reason)
    if not now < expires_at <= now + timedelta(days=MAX_OPERATOR_KEY_DAYS):
        raise InvalidManagementKey(f"an operator's key expires within {MAX_OPERATOR_KEY_DAYS} days")
    with transaction.atomic(using=scope_alias()):
        if not User.objects.filter(id=maker_id, is_active=True, is_staff=True).exists():
            raise RoleTooHigh("only operators make operators' keys")
        live = ManagementKey.objects.filter(
            tenant=None, created_by_id=maker_id, revoked_at=None, expires_at__gt=now
        )
        if live.count() >= MAX_MANAGEMENT_KEYS:
            raise TooManyManagementKeys(f"an operator has at most {MAX_MANAGEMENT_KEYS} management keys")
        return _issue(
            tenant_id=None,
            name=name,
            role="",
            scopes=_checked_scopes(scopes, OPERATOR_SCOPES),
            expires_at=expires_at,
            actor=actor,
            secrets=secrets,
            now=now,
            reason=reason,
        )


def revoke_management_key(
    *, tenant_id: UUID | None, key_id: UUID, actor: audit.Actor, now: datetime, reason: str = ""
) -> None:
    """End a key: its next call is refused. Revoking it again changes nothing.

    tenant_id: None for an operator's key. Errors: ManagementKeyNotFound.
    """
    with transaction.atomic(using=scope_alias()):
        keys = ManagementKey.objects.filter(Q(tenant_id=tenant_id), id=key_id)
        if keys.filter(revoked_at=None).update(revoked_at=now):
            _record(actor, "management_key.revoke", tenant_id, key_id, reason=reason)
        elif not keys.exists():
            raise ManagementKeyNotFound("no such management key")


def end_management_keys(tenant_id: UUID, user_id: UUID, now: datetime, role: Role | None = None) -> None:
    """Revoke the keys in the name of a member who has left, or may with this role no longer do what they may;
    within the caller's transaction."""
    keys = ManagementKey.objects.filter(tenant_id=tenant_id, created_by_id=user_id, revoked_at=None)
    if role is not None:
        keys = keys.exclude(role__in=[one.value for one in Role if includes(role, one)])
    keys.update(revoked_at=now)


def claim_write(
    *, management_key_id: UUID, idempotency_key: str, fingerprint: bytes, secrets: SecretStore
) -> StoredAnswer | None:
    """The answer that was given to the same write before, or None: then the caller does it and remembers it.

    Holds back everybody else with the same key until the caller's transaction ends, however it ends.
    Errors: WriteConflict, WriteInProgress (somebody else took longer than WRITE_WAIT_MS).
    """
    _lock_write(management_key_id, idempotency_key)
    known = IdempotentWrite.objects.filter(
        management_key_id=management_key_id, idempotency_key=idempotency_key
    ).first()
    if known is None:
        return None
    if bytes(known.fingerprint) != fingerprint:
        raise WriteConflict("the idempotency key was used for another request")
    return StoredAnswer(known.status, secrets.decrypt(known.answer))


def remember_write(
    *,
    tenant_id: UUID | None,
    management_key_id: UUID,
    idempotency_key: str,
    fingerprint: bytes,
    answer: StoredAnswer,
    secrets: SecretStore,
    now: datetime,
) -> None:
    """Keep the answer to a write, in the transaction of what it did and of its claim."""
    IdempotentWrite.objects.using(scope_alias()).create(
        tenant_id=tenant_id,
        management_key_id=management_key_id,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
        status=answer.status,
        answer=secrets.encrypt(answer.body),
        created_at=now,
    )


def prune_writes(*, now: datetime) -> int:
    """Forget answers older than KEPT_WRITES; how many. As dataplane."""
    gone, _ = IdempotentWrite.objects.filter(created_at__lt=now - KEPT_WRITES).only("id").delete()
    return gone


def _issue(
    *,
    tenant_id: UUID | None,
    name: str,
    role: str,
    scopes: list[str],
    expires_at: datetime | None,
    actor: audit.Actor,
    secrets: SecretStore,
    now: datetime,
    reason: str = "",
) -> IssuedManagementKey:
    name = " ".join(name.split())
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise InvalidManagementKey("a key's name has 1 to 100 printable characters")
    key_id = uuid7()
    issued = new_management_key(key_id)
    pepper_number = secrets.current_pepper_number
    ManagementKey.objects.create(
        id=key_id,
        tenant_id=tenant_id,
        name=name,
        role=role,
        scopes=scopes,
        pepper_number=pepper_number,
        digest=secrets.digest(pepper_number, issued.secret),
        secret_hint=issued.token[-4:],
        created_by_id=_person(actor),
        created_at=now,
        expires_at=expires_at,
    )
    after = {
        "name": name,
        "role": role,
        "scopes": scopes,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    _record(actor, "management_key.create", tenant_id, key_id, after=after, reason=reason)
    return IssuedManagementKey(key_id, issued.token)


def _person(actor: audit.Actor) -> UUID:
    """In whose name a key acts. Errors: RoleTooHigh, for the system itself makes none."""
    if actor.user_id is None:
        raise RoleTooHigh("a key acts in the name of a person")
    return actor.user_id


def _record(
    actor: audit.Actor,
    action: str,
    tenant_id: UUID | None,
    key_id: UUID,
    *,
    after: Mapping[str, object] | None = None,
    reason: str = "",
) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=tenant_id,
        target=public_id(PREFIXES["management_key"], key_id),
        after=after,
        reason=reason,
    )


def _checked_scopes(scopes: Collection[ManagementScope], allowed: tuple[ManagementScope, ...]) -> list[str]:
    if not scopes:
        raise InvalidManagementKey("a key has at least one scope")
    if not set(scopes) <= set(allowed):
        raise InvalidManagementKey("a scope is not of this kind of key")
    return [scope.value for scope in allowed if scope in scopes]


def _lock_write(management_key_id: UUID, idempotency_key: str) -> None:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{WRITE_WAIT_MS}ms"])
        try:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                [f"{management_key_id}:{idempotency_key}"],
            )
        except OperationalError as error:
            if isinstance(error.__cause__, LockNotAvailable):
                raise WriteInProgress("a request with this idempotency key is under way") from None
            raise
        cursor.execute("SELECT set_config('lock_timeout', '0', true)")
