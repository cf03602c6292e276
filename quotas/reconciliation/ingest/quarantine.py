"""Lines that could not be read, read again from where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction

from models_catalog.engines.feeds import BadFeedOptions, NoLineFormat
from quotas.models import FeedFile, FeedQuarantine, QuarantineState
from quotas.reconciliation.ingest.batch import MAX_RUN_BYTES, Batch
from quotas.reconciliation.ingest.files import BROKEN_ARCHIVE, FoundFile, files_of_folder, opened
from quotas.reconciliation.ingest.reading import Way, way_of
from quotas.reconciliation.ingest.source import FeedSource, feed_source
from quotas.reconciliation.ingest.taking import take_batch
from tenants.scope import scope_alias

# Other files that a line is looked for in, when its own is gone.
MAX_PLACES: Final = 32


class UnknownLine(LookupError):
    """There is no such line in quarantine."""


class NotOpen(ValueError):
    """The line has been read or dismissed already."""


class NothingToReadAgain(ValueError):
    """The line was pushed, or its file is gone or holds something else by now."""


@dataclass(frozen=True, slots=True)
class RetryReport:
    """How many lines were read this time, still cannot be read, and are not there any more."""

    read: int
    left: int
    gone: int


def retry_quarantine(*, feed_id: UUID, now: datetime, limit: int = 1000) -> RetryReport:
    """Read the open lines of a feed again, the oldest first. Safe to run twice. now: by the database's clock.

    Errors: UnknownFeed, BadFeedOptions, NoLineFormat.
    """
    way = way_of(feed_source(feed_id), now=now)
    lines = FeedQuarantine.objects.filter(
        feed_id=feed_id, state=QuarantineState.OPEN, file__isnull=False
    ).order_by("id")
    read = left = gone = 0
    for line_id in lines.values_list("id", flat=True)[:limit]:
        try:
            state = read_again(way=way, line_id=line_id, now=now)
        except (NothingToReadAgain, NotOpen):
            gone += 1
        else:
            read += state == QuarantineState.READ
            left += state == QuarantineState.OPEN
    return RetryReport(read, left, gone)


def way_of_line(*, line_id: UUID, now: datetime) -> Way:
    """Errors: UnknownLine, NothingToReadAgain."""
    line = FeedQuarantine.objects.filter(id=line_id).first()
    if line is None:
        raise UnknownLine("there is no such line")
    try:
        return way_of(feed_source(line.feed_id), now=now)
    except (BadFeedOptions, NoLineFormat) as error:
        raise NothingToReadAgain(str(error)) from error


def read_again(*, way: Way, line_id: UUID, now: datetime) -> QuarantineState:
    """Take a quarantined line when it can be read by now: its state then. All of it, where it stands for
    several.

    Errors: UnknownLine, NotOpen, NothingToReadAgain.
    """
    with transaction.atomic(using=scope_alias()):
        line = FeedQuarantine.objects.select_for_update().filter(id=line_id).first()
        if line is None:
            raise UnknownLine("there is no such line")
        if line.state != QuarantineState.OPEN:
            raise NotOpen("it has been resolved")
        if line.length > MAX_RUN_BYTES:
            # Nobody looks at more than that at once.
            return QuarantineState.OPEN
        batch = Batch(way.stager)
        if not _read_all(way, _bytes_of(way.feed, line, now), batch):
            return QuarantineState.OPEN
        take_batch(feed=way.feed, batch=batch, received_at=now)
        line.state = QuarantineState.READ
        line.resolved_at = now
        line.save(update_fields=["state", "resolved_at"])
        return QuarantineState.READ


def _read_all(way: Way, content: bytes, batch: Batch) -> bool:
    for line in content.split(b"\n"):
        try:
            entry = way.reader.read(line)
        except SoftTimeLimitExceeded:
            raise
        except Exception:  # noqa: BLE001 - a reader that fails has not read it either
            return False
        if entry is not None and batch.add(entry) is not None:
            return False
    return True


def _bytes_of(feed: FeedSource, line: FeedQuarantine, now: datetime) -> bytes:
    """What stood there, if it still does. Errors: NothingToReadAgain."""
    row = FeedFile.objects.filter(id=line.file_id).first() if line.file_id else None
    if row is None:
        raise NothingToReadAgain("what was pushed is not kept")
    for file in _places(feed, row, line, now):
        try:
            with opened(file) as stream:
                stream.seek(line.offset)
                content = stream.read(line.length)
        except (OSError, *BROKEN_ARCHIVE):
            continue
        if hashlib.sha256(content).digest() == bytes(line.sha256):
            return content
    raise NothingToReadAgain("its file is gone, or holds something else")


def _places(feed: FeedSource, row: FeedFile, line: FeedQuarantine, now: datetime) -> Iterator[FoundFile]:
    """Where the file may lie: where it was, or under another name. Those that are called alike come first."""
    folder = Path(feed.folder) if feed.folder else None
    path = Path(row.name) if folder is None else folder / row.name
    yield FoundFile(path, row.name, 0, is_closed=False)
    if folder is not None and folder.is_dir():
        end = line.offset + line.length
        found = [
            file
            for file in files_of_folder(folder, now_s=now.timestamp())[0]
            if file.path != path and (file.is_packed or file.size >= end)
        ]
        found.sort(key=lambda file: not file.name.startswith(row.name.partition(".")[0]))
        yield from found[:MAX_PLACES]
