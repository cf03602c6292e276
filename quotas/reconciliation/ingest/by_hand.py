"""Feeds that somebody hands over: files, folders and standard input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BufferedIOBase
from pathlib import Path
from uuid import UUID

from quotas.reconciliation.ingest.files import FoundFile, files_of_folder, name_of
from quotas.reconciliation.ingest.reading import Told, nothing_told, read_file, read_stream, way_of
from quotas.reconciliation.ingest.source import FeedSource, feed_source
from quotas.reconciliation.ingest.taking import Taken, checked_complete_to, note_heard


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What came. `waiting`: files whose last line has no end yet, or that cannot be unpacked to their end."""

    files: int
    taken: Taken
    reasons: Mapping[str, int]
    waiting: Sequence[str]


def take_over(
    *,
    feed_id: UUID,
    paths: Sequence[Path],
    stream: BufferedIOBase | None = None,
    is_closed: bool = False,
    now: datetime,
    complete_to: datetime | None = None,
    told: Told = nothing_told,
) -> HandedOver:
    """Read files, the files of folders, and a stream to their ends. What was read before is not read again,
    and what is known already changes nothing. now: by the database's clock. is_closed: nobody writes to the
    files any more. complete_to: all calls that ended before then are in what is handed over, or came before.

    Runs in the ingest role's scope.

    Errors: BadCompleteTo, UnknownFeed, BadFeedOptions, NoLineFormat, OSError, CursorMoved.
    """
    if complete_to is not None:
        complete_to = checked_complete_to(complete_to, now=now)
    feed = feed_source(feed_id)
    way = way_of(feed, now=now, told=told)
    taken, waiting, files = Taken(), [], 0
    for file in _files(feed, paths, now, is_closed):
        read = read_file(way, file)
        taken += read.taken
        files += 1
        if not read.is_whole or read.is_broken or read.is_cut:
            waiting.append(name_of(file.path))
    if stream is not None:
        taken += read_stream(way, stream)
    if complete_to is not None and not waiting:
        note_heard(feed=feed, heard_at=None, complete_to=complete_to)
    return HandedOver(files, taken, dict(way.reasons), waiting)


def _files(feed: FeedSource, paths: Sequence[Path], now: datetime, is_closed: bool) -> list[FoundFile]:
    """Errors: OSError, naming the path."""
    found: list[FoundFile] = []
    for path in paths:
        if path.is_dir():
            inside, _ = files_of_folder(path, now_s=now.timestamp())
            found += [_named(feed, file.path, is_closed or file.is_closed) for file in inside]
        else:
            found.append(_named(feed, path, is_closed))
    return found


def _named(feed: FeedSource, path: Path, is_closed: bool) -> FoundFile:
    """By its name when it lies in the feed's folder, as who watches that names it."""
    path = path.resolve()
    is_at_home = bool(feed.folder) and path.parent == Path(feed.folder).resolve()
    name = name_of(path, is_whole=not is_at_home)
    is_packed = path.suffix == ".gz"
    return FoundFile(path, name, path.stat().st_size, is_closed or is_packed)
