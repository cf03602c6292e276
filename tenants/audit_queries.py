"""Reads of the audit log. As operator everything; as tenant what an organization may see of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F, QuerySet

from portal.kit.ids import PREFIXES, partition_bound, public_id
from tenants.models import ActorKind, AuditEvent, AuditOutcome
from tenants.scope import scope_alias

MAX_PAGE_ROWS = 500
# Ids hold the moment when an event was made, `at` that when its transaction began.
_CLOCK_TOLERANCE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events: what is None or empty leaves a thing open. actor_email, target: exactly. action: the
    whole word, or its beginning with a dot behind it (`credit.`). from_at, to_at: half-open."""

    tenant_id: UUID | None = None
    actor_email: str = ""
    action: str = ""
    outcome: AuditOutcome | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One event. organization: the name of tenant_id, else empty. actor_email: empty for the system, and
    where whoever reads may not know the person."""

    id: UUID
    at: datetime
    actor_kind: ActorKind
    actor_id: UUID | None
    actor_email: str
    actor_role: str
    key_id: UUID | None
    action: str
    outcome: AuditOutcome
    tenant_id: UUID | None
    organization: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str
    is_internal: bool

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["audit"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id) if self.tenant_id else ""

    @property
    def is_refused(self) -> bool:
        return self.outcome == AuditOutcome.REFUSED


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Events, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[AuditRow, ...]
    next: UUID | None


def audit_page(*, filters: AuditFilter, before: UUID | None = None, limit: int = 50) -> AuditPage:
    """A page of the log, newest first. limit: 1 to MAX_PAGE_ROWS."""
    events = _filtered(filters)
    if before is not None:
        events = events.filter(id__lt=before)
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    values: Any = events.order_by("-id").values(
        "id",
        "at",
        "actor_kind",
        "actor_id",
        "actor_role",
        "key_id",
        "action",
        "outcome",
        "tenant_id",
        "target",
        "before",
        "after",
        "reason",
        "is_internal",
        organization=F("tenant__name"),
        actor_email=F("actor__email"),
    )[: limit + 1]
    rows = tuple(_row(one) for one in values)
    return AuditPage(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)


def known_actions() -> list[str]:
    """Every action that stands in the log, each found by one look into the index."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE known(action) AS ("
            "  (SELECT action FROM tenants_auditevent ORDER BY action LIMIT 1) UNION ALL "
            "  SELECT (SELECT e.action FROM tenants_auditevent e WHERE e.action > k.action "
            "          ORDER BY e.action LIMIT 1) FROM known k WHERE k.action IS NOT NULL) "
            "SELECT action FROM known WHERE action IS NOT NULL"
        )
        return [action for (action,) in cursor.fetchall()]


def _filtered(filters: AuditFilter) -> QuerySet[AuditEvent]:
    events = AuditEvent.objects.all()
    if filters.tenant_id is not None:
        events = events.filter(tenant_id=filters.tenant_id)
    if filters.actor_email:
        events = events.filter(actor__email=filters.actor_email.lower())
    if filters.action.endswith("."):
        events = events.filter(action__startswith=filters.action)
    elif filters.action:
        events = events.filter(action=filters.action)
    if filters.target:
        events = events.filter(target=filters.target)
    if filters.outcome is not None:
        events = events.filter(outcome=filters.outcome)
    if filters.from_at is not None:
        events = events.filter(
            at__gte=filters.from_at, id__gte=partition_bound(filters.from_at - _CLOCK_TOLERANCE)
        )
    if filters.to_at is not None:
        events = events.filter(at__lt=filters.to_at, id__lt=partition_bound(filters.to_at + _CLOCK_TOLERANCE))
    return events


def _row(values: Mapping[str, Any]) -> AuditRow:
    return AuditRow(
        **{
            **values,
            "actor_kind": ActorKind(values["actor_kind"]),
            "outcome": AuditOutcome(values["outcome"]),
            "organization": values["organization"] or "",
            "actor_email": values["actor_email"] or "",
        }
    )
