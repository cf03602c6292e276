"""What operators do to an organization besides suspending it: notes, and ending a key that got out."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction

from portal.kit.ids import PREFIXES, public_id
from tenants.models import ActorKind, ApiKey, Tenant, TenantNote
from tenants.operations import audit
from tenants.operations.keys import KeyNotFound, revoke_api_key
from tenants.operations.organizations import OrganizationNotFound
from tenants.scope import scope_alias

MAX_NOTE_LENGTH: Final = 4000


class InvalidNote(ValueError):
    """A note is empty or longer than MAX_NOTE_LENGTH."""


def add_note(*, tenant_id: UUID, text: str, actor: audit.Actor) -> UUID:
    """Write down something about an organization, which never sees it; notes stay. As operator.

    Errors: InvalidNote, OrganizationNotFound.
    """
    text = text.strip()
    if not 0 < len(text) <= MAX_NOTE_LENGTH or "\0" in text:
        raise InvalidNote(f"a note has 1 to {MAX_NOTE_LENGTH} characters")
    if actor.kind != ActorKind.OPERATOR or actor.user_id is None:
        raise ValueError("notes are operators'")
    with transaction.atomic(using=scope_alias()):
        if not Tenant.objects.filter(id=tenant_id).exists():
            raise OrganizationNotFound("no such organization")
        note = TenantNote.objects.create(tenant_id=tenant_id, author_id=actor.user_id, text=text)
        audit.record(
            actor=actor,
            action="tenant.note",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["organization"], tenant_id),
            after={"note": text[:200]},
            is_internal=True,
        )
    return note.id


def revoke_key_for(*, tenant_id: UUID, key_id: UUID, reason: str, actor: audit.Actor, now: datetime) -> None:
    """End an organization's API key: its next call is refused. As operator.

    reason: the organization reads it. Errors: ReasonMissing (of tenants.operations.audit), KeyNotFound, also
    of a key that is revoked already.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        key = ApiKey.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id, id=key_id).first()
        if key is None or key.revoked_at is not None:
            raise KeyNotFound("no such key in use")
        revoke_api_key(tenant_id=tenant_id, key_id=key_id, now=now)
        audit.record(
            actor=actor,
            action="key.revoke",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["api_key"], key_id),
            before={"state": "ACTIVE"},
            after={"state": "REVOKED", "name": key.name},
            reason=reason,
        )
