"""What operators do about what got stuck between Stripe and us: ask again, process again. As operator."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction

from portal.kit.ids import PREFIXES, public_id
from quotas.models import OperationState, StripeOperation
from quotas.payments import inbox, sending
from quotas.payments.client import stripe_config
from quotas.payments.inbox_queries import failed_event_ids
from tenants.operations import audit
from tenants.scope import scope_alias

MAX_REPLAYED: Final = 50


class NotPending(ValueError):
    """The request has ended, or there is no such request."""


class NothingToReplay(LookupError):
    """No event has failed."""


def send_again(*, operation_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> OperationState:
    """Send a pending request to Stripe once more, with the same key; its state afterwards.

    Outside every transaction. Errors: NotPending, ReasonMissing (of tenants.operations.audit),
    quotas.payments.sending.TransactionOpen, quotas.payments.client.PaymentsNotConfigured.
    """
    sending.require_no_transaction()
    stripe_config()
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        pending = StripeOperation.objects.filter(id=operation_id, state=OperationState.PENDING).first()
        if pending is None:
            raise NotPending("the request is not pending")
        audit.record(
            actor=actor,
            action="stripe_operation.send",
            tenant_id=pending.tenant_id,
            target=public_id(PREFIXES["stripe_operation"], pending.id),
            after={"kind": str(pending.kind), "attempts": pending.attempts},
            reason=reason,
            is_internal=True,
        )
    return sending.send(operation_id=operation_id, now=now).state


def replay_failed(*, actor: audit.Actor, reason: str, now: datetime, limit: int = MAX_REPLAYED) -> int:
    """Have the oldest events that failed processed again; how many. limit: 1 to MAX_REPLAYED.

    Errors: NothingToReplay, ReasonMissing (of tenants.operations.audit).
    """
    with transaction.atomic(using=scope_alias()):
        found = failed_event_ids(limit=max(1, min(limit, MAX_REPLAYED)))
        if not found:
            raise NothingToReplay("no event has failed")
        for event_id in found:
            inbox.replay_event(event_id=event_id, actor=actor, reason=reason, now=now)
    return len(found)
