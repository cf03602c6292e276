"""What backends served and nobody was billed for: the list of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import F, QuerySet

from portal.kit.ids import PREFIXES, public_id
from quotas.models import FeedRecord, SuspenseItem, SuspenseKind, SuspenseState

MAX_PAGE_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class SuspenseFilter:
    """Which items; None and "" leave a thing open."""

    state: SuspenseState | None = None
    kind: SuspenseKind | None = None
    backend: str = ""


@dataclass(frozen=True, slots=True)
class SuspenseRow:
    """Tokens that belong to nobody yet; below 0 where a counter says less than was billed. wire_id: what a
    record calls itself; window_from_at, window_to_at: of what a counter left over."""

    id: UUID
    kind: SuspenseKind
    state: SuspenseState
    backend_id: UUID
    backend_code: str
    event_at: datetime
    prompt_tokens: int
    completion_tokens: int
    wire_id: str
    window_from_at: datetime | None
    window_to_at: datetime | None
    opened_at: datetime
    resolved_at: datetime | None
    resolved_by: str
    reason: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["suspense"], self.id)

    @property
    def is_open(self) -> bool:
        return self.state == SuspenseState.OPEN


@dataclass(frozen=True, slots=True)
class SuspensePage:
    """Newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[SuspenseRow, ...]
    next: UUID | None


def list_suspense(*, filters: SuspenseFilter, before: UUID | None = None, limit: int = 50) -> SuspensePage:
    """A page. limit: 1 to MAX_PAGE_ROWS."""
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    found = _related()
    if filters.state is not None:
        found = found.filter(state=filters.state)
    if filters.kind is not None:
        found = found.filter(kind=filters.kind)
    if filters.backend:
        found = found.filter(backend__code=filters.backend)
    if before is not None:
        found = found.filter(id__lt=before)
    rows = _rows(list(found.order_by("-id")[: limit + 1]))
    return SuspensePage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def find_suspense(*, suspense_id: UUID) -> SuspenseRow | None:
    rows = _rows(list(_related().filter(id=suspense_id)))
    return rows[0] if rows else None


def _related() -> QuerySet[Any]:
    return SuspenseItem.objects.select_related("backend", "window").annotate(resolver=F("resolved_by__email"))


def _rows(found: list[SuspenseItem]) -> list[SuspenseRow]:
    subjects = [one.subject_id for one in found if one.subject_id is not None]
    names = dict(FeedRecord.objects.filter(subject_id__in=subjects).values_list("subject_id", "wire_id"))
    return [
        SuspenseRow(
            id=one.id,
            kind=SuspenseKind(one.kind),
            state=SuspenseState(one.state),
            backend_id=one.backend_id,
            backend_code=one.backend.code,
            event_at=one.event_at,
            prompt_tokens=one.prompt_tokens,
            completion_tokens=one.completion_tokens,
            wire_id=names.get(one.subject_id, "") if one.subject_id else "",
            window_from_at=one.window.from_at if one.window else None,
            window_to_at=one.window.to_at if one.window else None,
            opened_at=one.opened_at,
            resolved_at=one.resolved_at,
            resolved_by=one.resolver or "",  # type: ignore[attr-defined]
            reason=one.reason,
        )
        for one in found
    ]
