"""The queue of discrepancies: a page of it, and all of a choice as comma-separated values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet

from models_catalog.models import ServingBackend
from portal.kit.ids import PREFIXES, public_id
from quotas.csv_text import amount, csv_text, moment, safe_text
from quotas.models import (
    OPEN_DISCREPANCY_STATES,
    Discrepancy,
    DiscrepancyKind,
    DiscrepancyState,
)
from tenants.scope import role_scope

MAX_PAGE_ROWS: Final = 200
CSV_PAGE_ROWS: Final = 500
CSV_COLUMNS: Final = (
    "id",
    "kind",
    "state",
    "late",
    "happened_at",
    "opened_at",
    "organization",
    "organization_name",
    "backend",
    "request",
    "attempt",
    "gateway_prompt_tokens",
    "gateway_cached_tokens",
    "gateway_completion_tokens",
    "gateway_reasoning_tokens",
    "feed_prompt_tokens",
    "feed_cached_tokens",
    "feed_completion_tokens",
    "feed_reasoning_tokens",
    "feed_finish",
    "change_of_charge",
    "overrun",
    "currency",
    "revision",
    "resolved_at",
    "resolved_by",
    "reason",
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one witness says of an attempt, in tokens; None where it says nothing."""

    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None

    @property
    def says_nothing(self) -> bool:
        return self.prompt_tokens is None and self.completion_tokens is None


@dataclass(frozen=True, slots=True)
class DiscrepancyFilter:
    """Which ones; None leaves a thing open. states: empty for all. day: in which the call ended, in UTC."""

    states: tuple[DiscrepancyState, ...] = ()
    kind: DiscrepancyKind | None = None
    backend: str = ""
    tenant_id: UUID | None = None
    day: date | None = None
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class DiscrepancyRow:
    """One discrepancy. delta_nanos: what it changes of the charge; overrun_nanos: what the backend served
    beyond the bill, ours. In nano-units of the currency."""

    id: UUID
    kind: DiscrepancyKind
    state: DiscrepancyState
    attempt_id: UUID
    request_id: UUID
    tenant_id: UUID
    tenant_name: str
    currency: str
    backend_id: UUID
    backend_code: str
    event_at: datetime
    opened_at: datetime
    gateway: Counts
    feed: Counts
    feed_finish: str
    delta_nanos: int | None
    overrun_nanos: int
    is_late: bool
    revision: int | None
    resolved_at: datetime | None
    resolved_by: str
    reason: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["discrepancy"], self.id)

    @property
    def request(self) -> str:
        return public_id(PREFIXES["request"], self.request_id)

    @property
    def organization(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_DISCREPANCY_STATES

    @property
    def is_waiting(self) -> bool:
        return self.state == DiscrepancyState.WAITING


@dataclass(frozen=True, slots=True)
class DiscrepancyPage:
    """Newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[DiscrepancyRow, ...]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class OpenCause:
    """Discrepancies that somebody has to look at, of one kind."""

    kind: DiscrepancyKind
    open: int
    waiting: int


def list_discrepancies(
    *, filters: DiscrepancyFilter, before: UUID | None = None, limit: int = 50
) -> DiscrepancyPage:
    """A page of the queue. limit: 1 to MAX_PAGE_ROWS (CSV_PAGE_ROWS for files)."""
    limit = max(1, min(limit, CSV_PAGE_ROWS))
    found = _chosen(filters)
    if before is not None:
        found = found.filter(id__lt=before)
    rows = [_row(one) for one in found.order_by("-id")[: limit + 1]]
    return DiscrepancyPage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def find_discrepancy(*, discrepancy_id: UUID) -> DiscrepancyRow | None:
    found = _related().filter(id=discrepancy_id).first()
    return _row(found) if found else None


def find_discrepancies(*, ids: Sequence[UUID]) -> list[DiscrepancyRow]:
    """Those of the ids that there are, newest first; at most MAX_PAGE_ROWS."""
    return [_row(one) for one in _related().filter(id__in=list(ids)[:MAX_PAGE_ROWS]).order_by("-id")]


def open_causes() -> list[OpenCause]:
    """What is open, by kind, in the order of the kinds."""
    found = (
        Discrepancy.objects.filter(state__in=OPEN_DISCREPANCY_STATES)
        .values("kind")
        .annotate(
            open=Count("id", filter=Q(state=DiscrepancyState.OPEN)),
            waiting=Count("id", filter=Q(state=DiscrepancyState.WAITING)),
        )
    )
    by_kind = {
        row["kind"]: OpenCause(DiscrepancyKind(row["kind"]), row["open"], row["waiting"]) for row in found
    }
    return [by_kind[kind] for kind in DiscrepancyKind if kind in by_kind]


def backend_codes() -> list[str]:
    """Of all backends, also those that serve no more: there may be discrepancies of their time."""
    return list(ServingBackend.objects.order_by("code").values_list("code", flat=True))


def iter_discrepancies_csv(*, filters: DiscrepancyFilter) -> Iterator[str]:
    """All of a choice, newest first, a piece for each page. Opens the operator's scope itself, for each piece
    anew, so that a slow reader holds no transaction open."""
    before: UUID | None = None
    header = csv_text([CSV_COLUMNS])
    while True:
        with role_scope("operator"):
            page = list_discrepancies(filters=filters, before=before, limit=CSV_PAGE_ROWS)
        yield header + csv_text(_csv_row(row) for row in page.rows)
        if page.next is None:
            return
        before, header = page.next, ""


def _csv_row(row: DiscrepancyRow) -> tuple[str | int | None, ...]:
    return (
        row.public_id,
        row.kind,
        row.state,
        int(row.is_late),
        moment(row.event_at),
        moment(row.opened_at),
        row.organization,
        safe_text(row.tenant_name),
        safe_text(row.backend_code),
        row.request,
        public_id(PREFIXES["attempt"], row.attempt_id),
        *_cells(row.gateway),
        *_cells(row.feed),
        row.feed_finish,
        amount(row.delta_nanos),
        amount(row.overrun_nanos),
        row.currency,
        row.revision,
        moment(row.resolved_at),
        safe_text(row.resolved_by),
        safe_text(row.reason),
    )


def _cells(counts: Counts) -> tuple[int | None, ...]:
    return counts.prompt_tokens, counts.cached_tokens, counts.completion_tokens, counts.reasoning_tokens


def _chosen(filters: DiscrepancyFilter) -> QuerySet[Any]:
    found = _related()
    if filters.states:
        found = found.filter(state__in=filters.states)
    if filters.kind is not None:
        found = found.filter(kind=filters.kind)
    if filters.backend:
        found = found.filter(backend__code=filters.backend)
    if filters.tenant_id is not None:
        found = found.filter(tenant_id=filters.tenant_id)
    if filters.day is not None:
        from_at = datetime.combine(filters.day, time(), UTC)
        found = found.filter(event_at__gte=from_at, event_at__lt=from_at + timedelta(days=1))
    if filters.is_late:
        found = found.filter(is_late=True)
    return found


def _related() -> QuerySet[Any]:
    return Discrepancy.objects.select_related("tenant", "backend").annotate(
        resolver=F("resolved_by__email"),
    )


def _row(one: Discrepancy) -> DiscrepancyRow:
    return DiscrepancyRow(
        id=one.id,
        kind=DiscrepancyKind(one.kind),
        state=DiscrepancyState(one.state),
        attempt_id=one.attempt_id,
        request_id=one.request_id,
        tenant_id=one.tenant_id,
        tenant_name=one.tenant.name,
        currency=one.tenant.currency,
        backend_id=one.backend_id,
        backend_code=one.backend.code,
        event_at=one.event_at,
        opened_at=one.opened_at,
        gateway=Counts(
            one.gateway_prompt_tokens,
            one.gateway_cached_tokens,
            one.gateway_completion_tokens,
            one.gateway_reasoning_tokens,
        ),
        feed=Counts(
            one.feed_prompt_tokens,
            one.feed_cached_tokens,
            one.feed_completion_tokens,
            one.feed_reasoning_tokens,
        ),
        feed_finish=one.feed_finish,
        delta_nanos=one.delta_nanos,
        overrun_nanos=one.overrun_nanos,
        is_late=one.is_late,
        revision=one.revision,
        resolved_at=one.resolved_at,
        resolved_by=one.resolver or "",  # type: ignore[attr-defined]
        reason=one.reason,
    )
