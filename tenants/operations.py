"""Writes: organizations, members and API keys. The caller opens the scope."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from portal.kit.ids import uuid7
from portal.kit.secrets import SecretStore, new_api_key
from tenants.models import ApiKey, Membership, Role, Tenant, TenantState
from tenants.scope import current_scope

MAX_LABELS = 16
MAX_LABEL_LENGTH = 64
MAX_KEYS_PER_TENANT = 500


class InvalidKeyOptions(ValueError):
    """Name, labels or expiry of a key are not acceptable; the message says which."""


class TooManyKeys(ValueError):
    """The organization has as many live keys as it may have."""


class KeyNotFound(LookupError):
    """No such key in this scope, or it is revoked."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. The token is known to nobody afterwards: show it once."""

    id: UUID
    token: str = field(repr=False)


def create_tenant(*, name: str, currency: str, owner_id: UUID | None) -> Tenant:
    """A new organization, with its owner when there is one."""
    tenant = Tenant.objects.create(name=name, currency=currency)
    if owner_id is not None:
        Membership.objects.create(tenant=tenant, user_id=owner_id, role=Role.OWNER)
    return tenant


def set_tenant_state(*, tenant_id: UUID, state: TenantState, reason: str) -> None:
    """Suspend, resume or close an organization; its next call is refused or admitted accordingly."""
    changed = Tenant.objects.filter(id=tenant_id).update(state=state, state_reason=reason)
    if changed != 1:
        raise Tenant.DoesNotExist(f"no organization {tenant_id}")


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise InvalidKeyOptions(f"a key has at most {MAX_LABELS} labels")
    for name, value in labels.items():
        if not 0 < len(name) <= MAX_LABEL_LENGTH or len(value) > MAX_LABEL_LENGTH:
            raise InvalidKeyOptions(f"names and values of labels have at most {MAX_LABEL_LENGTH} characters")
    return dict(labels)


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
) -> IssuedKey:
    """A new key. Only its HMAC is stored, under the newest pepper.

    Errors: InvalidKeyOptions, TooManyKeys.
    """
    if not 0 < len(name.strip()) <= 100:
        raise InvalidKeyOptions("a key's name has 1 to 100 characters")
    if expires_at is not None and expires_at <= now:
        raise InvalidKeyOptions("a key's expiry lies in the future")
    if ApiKey.objects.filter(tenant_id=tenant_id, revoked_at=None).count() >= MAX_KEYS_PER_TENANT:
        raise TooManyKeys(f"an organization has at most {MAX_KEYS_PER_TENANT} keys")
    key_id = uuid7()
    issued = new_api_key(key_id)
    pepper_number = secrets.current_pepper_number
    ApiKey.objects.create(
        id=key_id,
        tenant_id=tenant_id,
        name=name.strip(),
        labels=_checked_labels(labels or {}),
        pepper_number=pepper_number,
        digest=secrets.digest(pepper_number, issued.secret),
        secret_hint=issued.token[-4:],
        restricts_models=restricts_models,
        expires_at=expires_at,
        rotated_from_id=rotated_from_id,
    )
    return IssuedKey(key_id, issued.token)


def rotate_api_key(
    *, tenant_id: UUID, key_id: UUID, secrets: SecretStore, now: datetime, overlap_s: int
) -> IssuedKey:
    """A successor of a key with the same options; the old one goes on for `overlap_s` seconds.

    What the key is allowed to use is copied by models_catalog.operations.rotate_api_key, which callers
    use. Errors: KeyNotFound, also when the key has been rotated already.
    """
    scope = current_scope()
    with transaction.atomic(using=scope.role if scope else None):
        old = (
            ApiKey.objects.select_for_update(no_key=True, of=("self",))
            .filter(tenant_id=tenant_id, id=key_id, revoked_at=None, rotated_to=None)
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
