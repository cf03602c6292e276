"""API keys: issued once, changed, rotated, revoked; and the keys of people in the playground."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from portal.kit.ids import uuid7
from portal.kit.secrets import SecretStore, new_api_key
from tenants.models import ApiKey, KeyPurpose, Membership
from tenants.permissions import Permission, may
from tenants.scope import scope_alias

MAX_LABELS = 16
MAX_LABEL_LENGTH = 64
MAX_KEYS_PER_TENANT = 500


class InvalidKeyOptions(ValueError):
    """Name, labels or expiry of a key are not acceptable; the message says which."""


class TooManyKeys(ValueError):
    """The organization has as many live keys as it may have."""


class KeyNotFound(LookupError):
    """No such key in this scope, or it is revoked."""


class NotAMember(LookupError):
    """The person does not belong to the organization."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. The token is known to nobody afterwards: show it once."""

    id: UUID
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PlaygroundKey:
    """What admission asks for: the key's id and the digest of its secret, which nobody knows."""

    id: UUID
    digest_hex: str = field(repr=False)


def create_api_key(
    *,
    tenant_id: UUID,
    name: str,
    secrets: SecretStore,
    now: datetime,
    labels: Mapping[str, str] | None = None,
    expires_at: datetime | None = None,
    restricts_models: bool = False,
    rotated_from_id: UUID | None = None,
    created_by_id: UUID | None = None,
) -> IssuedKey:
    """A new key. Only its HMAC is stored, under the newest pepper.

    created_by_id: the person who makes it. Errors: InvalidKeyOptions, TooManyKeys.
    """
    checked_name = _checked_name(name)
    if expires_at is not None and expires_at <= now:
        raise InvalidKeyOptions("a key's expiry lies in the future")
    live = ApiKey.objects.filter(tenant_id=tenant_id, purpose=KeyPurpose.API, revoked_at=None)
    if live.count() >= MAX_KEYS_PER_TENANT:
        raise TooManyKeys(f"an organization has at most {MAX_KEYS_PER_TENANT} keys")
    key_id = uuid7()
    issued = new_api_key(key_id)
    pepper_number = secrets.current_pepper_number
    ApiKey.objects.create(
        id=key_id,
        tenant_id=tenant_id,
        name=checked_name,
        labels=_checked_labels(labels or {}),
        pepper_number=pepper_number,
        digest=secrets.digest(pepper_number, issued.secret),
        secret_hint=issued.token[-4:],
        restricts_models=restricts_models,
        expires_at=expires_at,
        rotated_from_id=rotated_from_id,
        created_by_id=created_by_id,
    )
    return IssuedKey(key_id, issued.token)


def update_api_key(
    *, tenant_id: UUID, key_id: UUID, name: str | None = None, labels: Mapping[str, str] | None = None
) -> None:
    """Change a key's name or labels; None leaves what is there. Errors: InvalidKeyOptions, KeyNotFound."""
    changes: dict[str, object] = {}
    if name is not None:
        changes["name"] = _checked_name(name)
    if labels is not None:
        changes["labels"] = _checked_labels(labels)
    keys = ApiKey.objects.filter(tenant_id=tenant_id, id=key_id, purpose=KeyPurpose.API, revoked_at=None)
    if (keys.update(**changes) if changes else keys.count()) != 1:
        raise KeyNotFound("no such key")


def rotate_api_key(
    *,
    tenant_id: UUID,
    key_id: UUID,
    secrets: SecretStore,
    now: datetime,
    overlap_s: int,
    created_by_id: UUID | None = None,
) -> IssuedKey:
    """A successor of a key with the same options; the old one goes on for `overlap_s` seconds.

    What the key is allowed to use is copied by models_catalog.operations.rotate_api_key, which callers
    use. Errors: KeyNotFound, also when the key has been rotated already.
    """
    with transaction.atomic(using=scope_alias()):
        old = (
            ApiKey.objects.select_for_update(no_key=True, of=("self",))
            # The secret of a key for the playground is nobody's to have.
            .filter(tenant_id=tenant_id, id=key_id, purpose=KeyPurpose.API, revoked_at=None, rotated_to=None)
            .first()
        )
        if old is None or (old.expires_at is not None and old.expires_at <= now):
            raise KeyNotFound("no such key to rotate")
        issued = create_api_key(
            tenant_id=tenant_id,
            name=old.name,
            secrets=secrets,
            now=now,
            labels=old.labels,
            expires_at=old.expires_at,
            restricts_models=old.restricts_models,
            rotated_from_id=old.id,
            created_by_id=created_by_id,
        )
        ends_at = now + timedelta(seconds=overlap_s)
        if old.expires_at is None or ends_at < old.expires_at:
            old.expires_at = ends_at
            old.save(update_fields=["expires_at"])
    return issued


def revoke_api_key(*, tenant_id: UUID, key_id: UUID, now: datetime) -> None:
    """End a key: its next call is refused. Revoking it again changes nothing. Errors: KeyNotFound."""
    keys = ApiKey.objects.filter(tenant_id=tenant_id, id=key_id)
    if not keys.filter(revoked_at=None).update(revoked_at=now) and not keys.exists():
        raise KeyNotFound("no such key")


def playground_key(*, tenant_id: UUID, user_id: UUID, secrets: SecretStore, now: datetime) -> PlaygroundKey:
    """The key through which a member's chats are admitted and billed; made at the first use.

    It is a key like every other, so revoking it refuses the next call, but its secret is thrown away
    here, so no program can ever use it. Safe to call in parallel. Errors: NotAMember, also of a member whose
    role does not allow chatting.
    """
    known = _live_playground_key(tenant_id, user_id)
    if known is not None:
        return known
    with transaction.atomic(using=scope_alias()):
        # Whoever removes the member waits for this lock, or we for them: no key outlives a membership.
        # It also lets one of several first uses make the key.
        memberships = Membership.objects.select_for_update(no_key=True, of=("self",))
        member = memberships.filter(tenant_id=tenant_id, user_id=user_id).first()
        if member is None or not may(member.role, Permission.USE_PLAYGROUND):
            raise NotAMember("no such member who may chat")
        known = _live_playground_key(tenant_id, user_id)
        if known is not None:
            return known
        key_id = uuid7()
        pepper_number = secrets.current_pepper_number
        digest = secrets.digest(pepper_number, new_api_key(key_id).secret)
        ApiKey.objects.create(
            id=key_id,
            tenant_id=tenant_id,
            purpose=KeyPurpose.PLAYGROUND,
            name="Playground",
            pepper_number=pepper_number,
            digest=digest,
            created_by_id=user_id,
        )
    return PlaygroundKey(key_id, digest.hex())


def end_playground_key(tenant_id: UUID, user_id: UUID, now: datetime) -> None:
    """Revoke the key of a person who may not chat any more; within the caller's transaction."""
    ApiKey.objects.filter(
        tenant_id=tenant_id, created_by_id=user_id, purpose=KeyPurpose.PLAYGROUND, revoked_at=None
    ).update(revoked_at=now)


def _live_playground_key(tenant_id: UUID, user_id: UUID) -> PlaygroundKey | None:
    found = (
        ApiKey.objects.filter(
            tenant_id=tenant_id, created_by_id=user_id, purpose=KeyPurpose.PLAYGROUND, revoked_at=None
        )
        .values_list("id", "digest")
        .first()
    )
    return None if found is None else PlaygroundKey(found[0], bytes(found[1]).hex())


def _checked_name(name: str) -> str:
    name = name.strip()
    if not 0 < len(name) <= 100:
        raise InvalidKeyOptions("a key's name has 1 to 100 characters")
    return name


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise InvalidKeyOptions(f"a key has at most {MAX_LABELS} labels")
    for name, value in labels.items():
        if not 0 < len(name) <= MAX_LABEL_LENGTH or len(value) > MAX_LABEL_LENGTH:
            raise InvalidKeyOptions(f"names and values of labels have at most {MAX_LABEL_LENGTH} characters")
    return dict(labels)
