"""What becomes of tokens that belong to nobody: explained, or written off. Neither is on any bill."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from portal.kit.ids import PREFIXES, public_id
from quotas.models import SuspenseItem, SuspenseState
from quotas.reconciliation.corrections import NotOpen
from tenants.operations import audit
from tenants.scope import role_scope


class UnknownSuspense(LookupError):
    """There is no such item."""


def explain(*, suspense_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> None:
    """Somebody knows whose tokens these are. Errors: ReasonMissing, UnknownSuspense, NotOpen."""
    _resolve(suspense_id, SuspenseState.EXPLAINED, "suspense.explain", actor, reason, now)


def write_off(*, suspense_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> None:
    """Nobody will know, and it is not worth looking any longer. Errors: as explain."""
    _resolve(suspense_id, SuspenseState.WRITTEN_OFF, "suspense.write_off", actor, reason, now)


def _resolve(
    suspense_id: UUID, state: SuspenseState, action: str, actor: audit.Actor, reason: str, now: datetime
) -> None:
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with role_scope("dataplane"), transaction.atomic(using="dataplane"):
        item = SuspenseItem.objects.select_for_update(no_key=True).filter(id=suspense_id).first()
        if item is None:
            raise UnknownSuspense("there is no such item")
        if item.state != SuspenseState.OPEN:
            raise NotOpen("it was decided about before")
        item.state, item.reason = state, reason
        item.resolved_at, item.resolved_by_id = now, operator_id
        item.save(update_fields=["state", "reason", "resolved_at", "resolved_by_id"])
        audit.record(
            actor=actor,
            action=action,
            target=public_id(PREFIXES["suspense"], item.id),
            before={"state": SuspenseState.OPEN.value},
            after={"state": state.value, "prompt": item.prompt_tokens, "completion": item.completion_tokens},
            reason=reason,
            is_internal=True,
        )
