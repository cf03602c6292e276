"""The usage feeds: where each stands, the files it was read from, and the lines that could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, Sum

from models_catalog.models import UsageFeed
from portal.kit.ids import PREFIXES, public_id
from quotas.models import FeedFile, FeedQuarantine, FeedState, QuarantineState

MAX_FILES: Final = 50
MAX_PAGE_ROWS: Final = 200
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class FeedRow:
    """One feed. complete_to: before grace; lag_s: how far that lies behind now, in seconds. quarantined:
    lines that wait for somebody."""

    id: UUID
    code: str
    backend_id: UUID
    backend_code: str
    format: str
    folder: str
    time_zone: str
    grace_s: int
    is_enabled: bool
    has_credential: bool
    complete_to: datetime | None
    heard_at: datetime | None
    error: str
    files: int
    entries: int
    quarantined: int
    lag_s: float | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["feed"], self.id)


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file: how far it was read, in bytes."""

    name: str
    offset: int
    lines: int
    entries: int
    quarantined: int
    last_event_at: datetime | None
    seen_at: datetime
    read_at: datetime | None
    is_closed: bool


@dataclass(frozen=True, slots=True)
class LineRow:
    """A line that could not be read: where it stands, never what it says. offset: of a file, in bytes; of a
    pushed body its number in it (file is empty then)."""

    id: UUID
    feed_id: UUID
    feed_code: str
    file: str
    offset: int
    length: int
    digest: str
    reason: str
    detail: str
    body: str
    received_at: datetime
    state: QuarantineState
    resolved_at: datetime | None
    note: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["feed_line"], self.id)

    @property
    def feed(self) -> str:
        return public_id(PREFIXES["feed"], self.feed_id)

    @property
    def is_open(self) -> bool:
        return self.state == QuarantineState.OPEN


@dataclass(frozen=True, slots=True)
class LinePage:
    """Newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[LineRow, ...]
    next: UUID | None


def list_feeds(*, now: datetime, feed_id: UUID | None = None) -> list[FeedRow]:
    """All, or one, by the codes of backend and feed."""
    found = UsageFeed.objects.select_related("backend").order_by("backend__code", "code")
    if feed_id is not None:
        found = found.filter(id=feed_id)
    states = {one.feed_id: one for one in FeedState.objects.filter(feed__in=found)}
    files: dict[UUID, Mapping[str, Any]] = {
        row["feed_id"]: row
        for row in FeedFile.objects.filter(feed__in=found)
        .values("feed_id")
        .annotate(files=Count("id"), read=Sum("entries"))
    }
    open_lines = dict(
        FeedQuarantine.objects.filter(feed__in=found, state=QuarantineState.OPEN)
        .values("feed_id")
        .annotate(number=Count("id"))
        .values_list("feed_id", "number")
    )
    rows = []
    for one in found:
        state, read = states.get(one.id), files.get(one.id, _NOTHING)
        complete_to = state.complete_to if state else None
        rows.append(
            FeedRow(
                id=one.id,
                code=one.code,
                backend_id=one.backend_id,
                backend_code=one.backend.code,
                format=one.format,
                folder=one.folder,
                time_zone=one.time_zone,
                grace_s=one.grace_s,
                is_enabled=one.is_enabled,
                has_credential=bool(one.credential_encrypted),
                complete_to=complete_to,
                heard_at=state.heard_at if state else None,
                error=state.error if state else "",
                files=read.get("files", 0),
                entries=read.get("read") or 0,
                quarantined=open_lines.get(one.id, 0),
                lag_s=(now - complete_to).total_seconds() if complete_to else None,
            )
        )
    return rows


def list_files(*, feed_id: UUID) -> list[FileRow]:
    """The MAX_FILES that were seen last."""
    return [
        FileRow(
            name=one.name,
            offset=one.offset,
            lines=one.lines,
            entries=one.entries,
            quarantined=one.quarantined,
            last_event_at=one.last_event_at,
            seen_at=one.seen_at,
            read_at=one.read_at,
            is_closed=one.is_closed,
        )
        for one in FeedFile.objects.filter(feed_id=feed_id).order_by("-seen_at", "-id")[:MAX_FILES]
    ]


def list_lines(
    *,
    feed_id: UUID | None = None,
    state: QuarantineState | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> LinePage:
    """A page of lines in quarantine. limit: 1 to MAX_PAGE_ROWS."""
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    found = FeedQuarantine.objects.select_related("feed", "file").order_by("-id")
    if feed_id is not None:
        found = found.filter(feed_id=feed_id)
    if state is not None:
        found = found.filter(state=state)
    if before is not None:
        found = found.filter(id__lt=before)
    rows = [_line(one) for one in found[: limit + 1]]
    return LinePage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def find_line(*, line_id: UUID) -> LineRow | None:
    found = FeedQuarantine.objects.select_related("feed", "file").filter(id=line_id).first()
    return _line(found) if found else None


def _line(one: FeedQuarantine) -> LineRow:
    return LineRow(
        id=one.id,
        feed_id=one.feed_id,
        feed_code=one.feed.code,
        file=one.file.name if one.file else "",
        offset=one.offset,
        length=one.length,
        digest=bytes(one.sha256).hex(),
        reason=one.reason,
        detail=one.detail,
        body=one.body,
        received_at=one.received_at,
        state=QuarantineState(one.state),
        resolved_at=one.resolved_at,
        note=one.note,
    )
