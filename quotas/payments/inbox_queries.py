"""What operators read about the inbox, the requests to Stripe, and who asks there. As operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import F, Q, QuerySet

from portal.kit.ids import PREFIXES, public_id
from quotas.models import (
    EventSource,
    EventState,
    OperationKind,
    OperationState,
    PollCursor,
    StripeEvent,
    StripeOperation,
)
from quotas.payments.backoffice_queries import MAX_PAGE_ROWS, Page

MAX_COUNTED: Final = 1000
MAX_TYPES: Final = 200


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What a list of events is about. text: the id of an event, or of the object that it is about."""

    state: EventState | None = None
    type: str = ""
    source: EventSource | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class EventCursor:
    """The event behind which the next page begins."""

    created_at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of the inbox. created_at: at Stripe."""

    id: str
    type: str
    object_id: str
    account: str
    api_version: str
    source: EventSource
    state: EventState
    attempts: int
    error: str
    created_at: datetime
    received_at: datetime
    next_attempt_at: datetime
    processed_at: datetime | None

    @property
    def is_failed(self) -> bool:
        return self.state == EventState.FAILED


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[EventRow, ...]
    next: EventCursor | None


@dataclass(frozen=True, slots=True)
class OperationRow:
    """A request to Stripe. subject_id: of the top-up, refund or invoice that it is about."""

    id: UUID
    tenant_id: UUID
    organization: str
    kind: OperationKind
    subject_id: UUID | None
    parameters: Any
    state: OperationState
    object_id: str
    error_code: str
    error_text: str
    attempts: int
    created_at: datetime
    sent_at: datetime | None
    finished_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["stripe_operation"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def is_pending(self) -> bool:
        return self.state == OperationState.PENDING


@dataclass(frozen=True, slots=True)
class CursorRow:
    """A poller: when it last asked Stripe, and what went wrong then."""

    name: str
    read_to: datetime
    polled_at: datetime
    error: str


def list_events(*, filters: EventFilter, before: EventCursor | None = None, limit: int = 50) -> EventPage:
    """A page of events, newest first. limit: 1 to MAX_PAGE_ROWS."""
    events = StripeEvent.objects.all()
    if filters.state is not None:
        events = events.filter(state=filters.state)
    if filters.type:
        events = events.filter(type=filters.type)
    if filters.source is not None:
        events = events.filter(source=filters.source)
    if filters.text:
        events = events.filter(Q(id=filters.text) | Q(object_id=filters.text))
    if before is not None:
        at, event_id = before.created_at, before.id
        events = events.filter(Q(created_at__lt=at) | Q(created_at=at, id__lt=event_id))
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    rows = _event_rows(events.order_by("-created_at", "-id")[: limit + 1])
    last = rows[limit - 1] if len(rows) > limit else None
    return EventPage(tuple(rows[:limit]), EventCursor(last.created_at, last.id) if last else None)


def events_about(*, object_ids: Iterable[str], limit: int = 50) -> list[EventRow]:
    """What Stripe said about these objects, newest first."""
    events = StripeEvent.objects.filter(object_id__in=[one for one in object_ids if one])
    return _event_rows(events.order_by("-created_at", "-id")[:limit])


def find_event(*, event_id: str) -> EventRow | None:
    """One event, or None."""
    return next(iter(_event_rows(StripeEvent.objects.filter(id=event_id))), None)


def event_payload(*, event_id: str) -> Any:
    """What came from Stripe; None for an event that is not there."""
    return StripeEvent.objects.filter(id=event_id).values_list("payload", flat=True).first()


def event_types() -> list[str]:
    """The types of what is in the inbox, by name."""
    types = StripeEvent.objects.order_by("type").values_list("type", flat=True).distinct()
    return list(types[:MAX_TYPES])


def count_events(*, state: EventState) -> int:
    """How many events are in this state, counted no further than MAX_COUNTED."""
    return StripeEvent.objects.filter(state=state)[:MAX_COUNTED].count()


def failed_event_ids(*, limit: int) -> list[str]:
    """The oldest of those that failed."""
    failed = StripeEvent.objects.filter(state=EventState.FAILED).order_by("created_at", "id")
    return list(failed.values_list("id", flat=True)[:limit])


def last_event(*, source: EventSource) -> datetime | None:
    """When Stripe made the newest event that came this way."""
    events = StripeEvent.objects.filter(source=source).order_by("-created_at")
    return events.values_list("created_at", flat=True).first()


def list_operations(
    *,
    tenant_id: UUID | None = None,
    state: OperationState | None = None,
    kind: OperationKind | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> Page[OperationRow]:
    """A page of requests to Stripe, newest first. limit: 1 to MAX_PAGE_ROWS."""
    wanted = {"tenant_id": tenant_id, "state": state, "kind": kind, "id__lt": before}
    operations = StripeOperation.objects.filter(
        **{name: value for name, value in wanted.items() if value is not None}
    )
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    rows = _operation_rows(operations.order_by("-id")[: limit + 1])
    return Page(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def operations_about(*, subject_ids: Iterable[UUID], limit: int = 50) -> list[OperationRow]:
    """What was asked of Stripe about these top-ups and refunds, newest first."""
    operations = StripeOperation.objects.filter(subject_id__in=list(subject_ids))
    return _operation_rows(operations.order_by("-id")[:limit])


def find_operation(*, operation_id: UUID) -> OperationRow | None:
    """One request to Stripe, or None."""
    return next(iter(_operation_rows(StripeOperation.objects.filter(id=operation_id))), None)


def list_cursors() -> list[CursorRow]:
    """Who asks Stripe on schedule, by name."""
    return [
        CursorRow(one.name, one.read_to, one.polled_at, one.error)
        for one in PollCursor.objects.order_by("name")
    ]


def _event_rows(events: QuerySet[StripeEvent]) -> list[EventRow]:
    # The payload is read for one event only: a list of them is long enough.
    found: Any = events.values(*EventRow.__slots__)
    return [
        EventRow(**(one | {"source": EventSource(one["source"]), "state": EventState(one["state"])}))
        for one in found
    ]


def _operation_rows(operations: QuerySet[StripeOperation]) -> list[OperationRow]:
    columns = (name for name in OperationRow.__slots__ if name != "organization")
    found: Any = operations.values(*columns, organization=F("tenant__name"))
    return [
        OperationRow(**(one | {"kind": OperationKind(one["kind"]), "state": OperationState(one["state"])}))
        for one in found
    ]
