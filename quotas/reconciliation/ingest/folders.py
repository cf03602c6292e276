"""Watched folders: each run reads every file on, for a bounded time, and goes on where the last one
stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded
from django.db import connections

from models_catalog.engines.feeds import BadFeedOptions, NoLineFormat
from quotas.models import FeedFile
from quotas.reconciliation.ingest.files import FoundFile, files_of_folder
from quotas.reconciliation.ingest.reading import Told, Way, nothing_told, read_file, way_of
from quotas.reconciliation.ingest.source import FeedSource, watched_feeds
from quotas.reconciliation.ingest.taking import CursorMoved, Taken, note_error, note_heard
from tenants import queries as tenant_queries
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

# A folder in which files lay so lately and now there are none: a disk that is not mounted looks like that.
_GONE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class FolderRead:
    """What came of one run over a feed's folder. `is_whole`: every file was read to its end. `is_busy`:
    somebody else reads the feed, so nothing was done."""

    taken: Taken
    is_whole: bool
    error: str = ""
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class TailReport:
    """Of all watched feeds: what came, and how many could not be read or have more to read."""

    taken: Taken
    failed: int
    left: int


def tail_feeds(*, slice_s: float, total_s: float) -> TailReport:
    """Read the folder of every feed on, each for at most `slice_s` seconds, those that are behind
    first, and all for at most `total_s`. Safe to run twice and beside itself. What fails in one feed stops no
    other.

    Opens the scope of the ingest role. Errors: SoftTimeLimitExceeded.
    """
    taken, failed, left = Taken(), 0, 0
    end_s = time.monotonic() + total_s
    with role_scope("ingest"):
        for feed in watched_feeds():
            start_s = time.monotonic()
            if start_s >= end_s:
                left += 1
                continue
            now = tenant_queries.database_time()
            try:
                run = tail_feed(feed=feed, now=now, deadline_s=min(end_s, start_s + slice_s))
            except SoftTimeLimitExceeded:
                raise
            except Exception as failure:  # noqa: BLE001 - its text may hold what stands in the file
                kind = type(failure).__name__
                logger.error("quotas.feeds.failed", extra={"feed": feed.code, "kind": kind})
                run = _failed(feed, f"reading it failed: {kind}")
            taken += run.taken
            failed += bool(run.error)
            left += not run.is_whole and not run.is_busy
    return TailReport(taken, failed, left)


def tail_feed(
    *, feed: FeedSource, now: datetime, deadline_s: float = float("inf"), told: Told = nothing_told
) -> FolderRead:
    """Read a feed's folder on. now: by the database's clock, before this call; when every file has been read
    to its end, the feed is complete to then. deadline_s: on our monotonic clock."""
    with _alone(feed) as is_alone:
        if not is_alone:
            return FolderRead(Taken(), is_whole=False, is_busy=True)
        try:
            way = way_of(feed, now=now, deadline_s=deadline_s, told=told)
            files, unreadable = files_of_folder(Path(feed.folder), now_s=now.timestamp())
        except OSError as error:
            return _failed(feed, f"the folder cannot be read: {error.strerror}")
        except (BadFeedOptions, NoLineFormat) as error:
            return _failed(feed, str(error))
        if not files and FeedFile.objects.filter(feed_id=feed.id, seen_at__gt=now - _GONE).exists():
            return _failed(feed, "all files have gone from the folder")
        return _read_files(way, files, unreadable)


def _read_files(way: Way, files: list[FoundFile], unreadable: list[str]) -> FolderRead:
    # What cannot be read may say anything.
    taken, is_whole = Taken(), not unreadable
    error = unreadable[0] if unreadable else ""
    for file in files:
        if taken.lines and time.monotonic() > way.deadline_s:
            is_whole = False
            break
        try:
            read = read_file(way, file)
        except FileNotFoundError:
            # Renamed since the folder was read; the next run finds it.
            is_whole = False
        except OSError as problem:
            is_whole, error = False, f"{file.name} cannot be read: {problem.strerror}"
        except CursorMoved:
            is_whole = False
        else:
            taken += read.taken
            is_whole = is_whole and read.is_whole
            if read.is_broken:
                error = f"{file.name} cannot be unpacked"
    if is_whole:
        note_heard(feed=way.feed, heard_at=None, complete_to=way.now)
    if error:
        note_error(feed=way.feed, error=error)
    return FolderRead(taken, is_whole, error)


def _failed(feed: FeedSource, error: str) -> FolderRead:
    note_error(feed=feed, error=error)
    return FolderRead(Taken(), is_whole=False, error=error)


@contextmanager
def _alone(feed: FeedSource) -> Iterator[bool]:
    """Whether nobody else reads this feed's folder now. Only saves work: cursors are moved by whoever finds
    them unmoved. The lock ends with its connection at the latest."""
    key = f"feed_folder:{feed.id}"
    connection = connections[scope_alias()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [key])
        is_alone = bool(cursor.fetchone()[0])
    try:
        yield is_alone
    finally:
        if is_alone and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])
