"""Writes into the audit log. Whoever changes something on somebody's behalf writes it down with it, in the
same transaction: there is no change without its row, and no row without its change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models.functions import Now

from tenants.models import ActorKind, AuditEvent, AuditOutcome, Role
from tenants.scope import scope_alias

MAX_REASON_LENGTH: Final = 500
MAX_REFUSALS_PER_HOUR: Final = 60


class ReasonMissing(ValueError):
    """The change needs a reason of 3 to 500 characters."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an operator or a member, perhaps through a management key, or the system itself."""

    kind: ActorKind
    user_id: UUID | None = None
    role: Role | None = None
    key_id: UUID | None = None


SYSTEM: Final = Actor(ActorKind.SYSTEM)


def operator(user_id: UUID, *, key_id: UUID | None = None) -> Actor:
    """An operator, in pages or through a management key."""
    return Actor(ActorKind.OPERATOR, user_id, None, key_id)


def operator_id(actor: Actor) -> UUID:
    """Which operator it is. Errors: ValueError for anybody else, whom a door should not have let through."""
    if actor.kind != ActorKind.OPERATOR or actor.user_id is None:
        raise ValueError("this is done by operators only")
    return actor.user_id


def member(user_id: UUID, role: Role | None, *, key_id: UUID | None = None) -> Actor:
    """A member of an organization, in pages or through a management key; without a role somebody who is
    signed in, and acts outside every organization."""
    return Actor(ActorKind.MEMBER, user_id, role, key_id)


def record(
    *,
    actor: Actor,
    action: str,
    tenant_id: UUID | None = None,
    target: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    outcome: AuditOutcome = AuditOutcome.DONE,
    is_internal: bool = False,
) -> None:
    """Write one event with the change it belongs to. The caller opens the scope and the transaction.

    action: a dotted word such as `tenant.suspend`. target: a public id or code. before, after: plain JSON
    values, never secrets. is_internal: its organization does not see it.
    """
    AuditEvent.objects.using(scope_alias()).create(
        actor_kind=actor.kind,
        actor_id=actor.user_id,
        actor_role=actor.role.value if actor.role else "",
        key_id=actor.key_id,
        action=action,
        outcome=outcome,
        tenant_id=tenant_id,
        # Addresses are named as they were sent, and PostgreSQL stores no NUL.
        target=target.replace("\0", "")[:200],
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
        reason=reason[:MAX_REASON_LENGTH],
        is_internal=is_internal,
    )


def record_refusal(
    *,
    actor: Actor,
    action: str,
    reason: str,
    tenant_id: UUID | None = None,
    target: str = "",
    is_internal: bool = False,
) -> bool:
    """Write down what somebody tried and may not, after the transaction of the attempt was rolled back.

    At most MAX_REFUSALS_PER_HOUR of a person are written, so that nobody fills the log by trying; false for
    those beyond. In a tenant's scope those of its organization are counted. As tenant or operator.
    """
    refused = AuditEvent.objects.filter(
        actor_id=actor.user_id, outcome=AuditOutcome.REFUSED, at__gt=Now() - timedelta(hours=1)
    )
    if refused[:MAX_REFUSALS_PER_HOUR].count() >= MAX_REFUSALS_PER_HOUR:
        return False
    record(
        actor=actor,
        action=action,
        tenant_id=tenant_id,
        target=target,
        reason=reason,
        outcome=AuditOutcome.REFUSED,
        is_internal=is_internal,
    )
    return True


def checked_reason(reason: str) -> str:
    """The reason, trimmed. Errors: ReasonMissing."""
    reason = " ".join(reason.split())
    if not 3 <= len(reason) <= MAX_REASON_LENGTH:
        raise ReasonMissing("a reason of 3 to 500 characters is needed")
    return reason
