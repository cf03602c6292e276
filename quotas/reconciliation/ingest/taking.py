"""Taking a batch: records, quarantine and cursor commit together, or none of them does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import connections, transaction

from portal.kit.ids import uuid7
from quotas.models import FeedFile, FeedQuarantine
from quotas.reconciliation.ingest.batch import Batch, Refused
from quotas.reconciliation.ingest.identity import STAGED_COLUMNS
from quotas.reconciliation.ingest.source import FeedSource
from tenants.scope import scope_alias

_HAS_STAGING: Final = "SELECT to_regclass('pg_temp.feed_staging') IS NOT NULL"
_MAKE_STAGING: Final = """
CREATE TEMPORARY TABLE feed_staging (
  subject_id uuid NOT NULL, content_id uuid NOT NULL, part smallint NOT NULL, wire_id text NOT NULL,
  prompt_tokens int NOT NULL, cached_tokens int, completion_tokens int NOT NULL, reasoning_tokens int,
  finish text NOT NULL, event_at timestamptz NOT NULL
) ON COMMIT DELETE ROWS
"""
_COPY: Final = f"COPY feed_staging ({STAGED_COLUMNS}) FROM STDIN"
_TAKE: Final = "SELECT stored, matched, mismatched, early, foreign_count FROM quotas_take_feed(%s, %s)"
# What is complete stays so, and an error is over when something has come.
_HEARD: Final = """
INSERT INTO quotas_feedstate (feed_id, complete_to, heard_at, error) VALUES (%(feed)s, %(to)s, %(heard)s, '')
ON CONFLICT (feed_id) DO UPDATE SET
  complete_to = GREATEST(quotas_feedstate.complete_to, EXCLUDED.complete_to),
  heard_at = GREATEST(quotas_feedstate.heard_at, EXCLUDED.heard_at),
  error = ''
"""


# Nobody's clock is further ahead than this, and nobody's calls are older.
_AHEAD: Final = timedelta(minutes=5)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)


class BadCompleteTo(ValueError):
    """Until then no feed can have said all."""


class CursorMoved(RuntimeError):
    """Somebody else has read on in this file since: nothing was taken, and nothing needs to be."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Counts of what came. `entries` says what calls used; those that are not `inserted` were known
    already."""

    lines: int = 0
    entries: int = 0
    quarantined: int = 0
    inserted: int = 0
    matched: int = 0
    mismatched: int = 0
    early: int = 0
    foreign: int = 0

    @property
    def known(self) -> int:
        return self.entries - self.inserted

    def __add__(self, other: Taken) -> Taken:
        return Taken(*(getattr(self, name) + getattr(other, name) for name in Taken.__slots__))


@dataclass(frozen=True, slots=True)
class FileCursor:
    """Where the reading of a file was left, and where the batch leaves it. `row` is not yet stored when it
    was never read before, and is brought up to date when the batch has been taken."""

    row: FeedFile
    offset: int
    mark: str
    is_at_end: bool
    is_closed: bool


def take_batch(
    *,
    feed: FeedSource,
    batch: Batch,
    received_at: datetime,
    cursor: FileCursor | None = None,
    complete_to: datetime | None = None,
) -> Taken:
    """Take what the batch holds, in one transaction. Taking the same again changes nothing but the cursor.

    received_at: by the database's clock. complete_to: of a pushed body, until when the feed has said all.
    Errors: CursorMoved.
    """
    with transaction.atomic(using=scope_alias()):
        counts = _take_records(feed, batch, received_at)
        _quarantine(feed, batch.refused, received_at, cursor)
        taken = Taken(batch.lines, len(batch.rows), batch.refused_lines, *counts)
        # A file that says nothing new says nothing of when its feed was heard.
        if batch.rows or complete_to is not None:
            note_heard(feed=feed, heard_at=received_at if batch.rows else None, complete_to=complete_to)
        moved = _move(feed, cursor, taken, batch.last_event_at, received_at) if cursor else {}
    if cursor is not None:
        for name, value in moved.items():
            setattr(cursor.row, name, value)
    return taken


def checked_complete_to(complete_to: datetime, *, now: datetime) -> datetime:
    """What a feed says of itself, at most now. Errors: BadCompleteTo."""
    if not _EARLIEST <= complete_to <= now + _AHEAD:
        raise BadCompleteTo("a moment between 2000 and now")
    return min(now, complete_to)


def note_heard(*, feed: FeedSource, heard_at: datetime | None, complete_to: datetime | None) -> None:
    """Write that the feed works, and until when all that it says has been read; that never falls."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_HEARD, {"feed": feed.id, "to": complete_to, "heard": heard_at})


def note_error(*, feed: FeedSource, error: str) -> None:
    """Write why the feed cannot be read now. The text names no content."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "INSERT INTO quotas_feedstate (feed_id, error) VALUES (%s, %s) "
            "ON CONFLICT (feed_id) DO UPDATE SET error = EXCLUDED.error "
            "WHERE quotas_feedstate.error <> EXCLUDED.error",
            [feed.id, error[:200]],
        )


def _take_records(feed: FeedSource, batch: Batch, received_at: datetime) -> tuple[int, ...]:
    if not batch.rows:
        return ()
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_HAS_STAGING)
        if not cursor.fetchone()[0]:
            cursor.execute(_MAKE_STAGING)
        with cursor.copy(_COPY) as copy:
            copy.write("".join(batch.rows))
        cursor.execute(_TAKE, [feed.id, received_at])
        return tuple(cursor.fetchone())


def _quarantine(
    feed: FeedSource, refused: list[Refused], received_at: datetime, cursor: FileCursor | None
) -> None:
    if not refused:
        return
    if cursor is not None and cursor.row._state.adding:
        _store(cursor.row)
    FeedQuarantine.objects.bulk_create(
        [
            FeedQuarantine(
                id=uuid7(),
                feed_id=feed.id,
                file_id=cursor.row.id if cursor else None,
                offset=one.offset,
                length=one.length,
                sha256=one.sha256,
                reason=one.reason,
                detail=f"{one.lines} lines" if one.lines > 1 else one.detail[:200],
                body=one.body,
                received_at=received_at,
            )
            for one in refused
        ],
        ignore_conflicts=True,
    )


def _move(
    feed: FeedSource,
    cursor: FileCursor,
    taken: Taken,
    last_event_at: datetime | None,
    received_at: datetime,
) -> dict[str, Any]:
    row = cursor.row
    known = [at for at in (row.last_event_at, last_event_at) if at is not None]
    values = {
        "name": row.name,
        "offset": cursor.offset,
        "mark": cursor.mark,
        "lines": row.lines + taken.lines,
        "entries": row.entries + taken.entries,
        "quarantined": row.quarantined + taken.quarantined,
        "last_event_at": max(known) if known else None,
        "seen_at": received_at,
        "read_at": received_at if cursor.is_at_end else row.read_at,
        "is_closed": cursor.is_closed,
    }
    if row._state.adding:
        _store(row)
    moved = FeedFile.objects.filter(id=row.id, feed_id=feed.id, offset=row.offset).update(**values)
    if moved != 1:
        raise CursorMoved(f"file {row.id} has been read on")
    return values


def _store(row: FeedFile) -> None:
    """Errors: CursorMoved, when somebody else has found the file meanwhile."""
    stored = FeedFile.objects.bulk_create([row], ignore_conflicts=True)
    del stored
    if not FeedFile.objects.filter(id=row.id).exists():
        raise CursorMoved("the file has been found by somebody else")
