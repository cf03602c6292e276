"""Reading a file on from where it was left, batch by batch."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BufferedIOBase
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from models_catalog.engines.feeds import (
    LineProblem,
    LineReader,
    UnreadableLine,
    reader_of,
)
from quotas.reconciliation.ingest.ahead import read_ahead
from quotas.reconciliation.ingest.batch import Batch, Refused
from quotas.reconciliation.ingest.files import BROKEN_ARCHIVE, FoundFile, KnownFiles, Place, opened
from quotas.reconciliation.ingest.identity import Stager, record_bounds
from quotas.reconciliation.ingest.lines import Lines, LongLine
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.taking import FileCursor, Taken, take_batch

READER_FAILED: Final = "reader_failed"
BROKEN_PACKING: Final = "broken_gzip"

# How often the time is looked at.
_LOOK_UP_LINES: Final = 250
_LOOK_UP_BYTES: Final = 2**20
# How long a file that rests is not written about.
_OPEN_SEEN: Final = timedelta(minutes=1)
_CLOSED_SEEN: Final = timedelta(days=1)

Told = Callable[[str, Taken], None]


def nothing_told(_name: str, _taken: Taken) -> None:
    """For whoever shows no progress."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a feed's files are read in one run. now: by the database's clock. deadline_s: on our monotonic
    clock; what has not been read by then is left to the next run."""

    feed: FeedSource
    reader: LineReader
    stager: Stager
    known: KnownFiles
    now: datetime
    deadline_s: float = float("inf")
    told: Told = nothing_told
    # Lines that were quarantined in this run, by reason.
    reasons: Counter[str] = field(default_factory=Counter)

    def take(self, batch: Batch, cursor: FileCursor | None = None) -> Taken:
        """Errors: CursorMoved."""
        taken = take_batch(feed=self.feed, batch=batch, received_at=self.now, cursor=cursor)
        for refused in batch.refused:
            self.reasons[refused.reason] += refused.lines
        return taken


def way_of(
    feed: FeedSource, *, now: datetime, deadline_s: float = float("inf"), told: Told = nothing_told
) -> Way:
    """Errors: BadFeedOptions, NoLineFormat."""
    return Way(
        feed=feed,
        reader=reader_of(feed.format, feed.options()),
        stager=Stager(backend_id=feed.backend_id, bounds=record_bounds(now=now), received_at=now),
        known=KnownFiles(feed, now=now),
        now=now,
        deadline_s=deadline_s,
        told=told,
    )


@dataclass(frozen=True, slots=True)
class FileRead:
    """What came of one file. `is_whole`: its end was reached. `is_cut`: its last line has no end yet.
    `is_broken`: it cannot be unpacked."""

    taken: Taken
    is_whole: bool
    is_cut: bool = False
    is_broken: bool = False


def read_file(way: Way, file: FoundFile) -> FileRead:
    """Read a file on, to its end or the deadline. Errors: OSError, CursorMoved."""
    with opened(file) as stream:
        try:
            place = way.known.place(file, stream)
        except BROKEN_ARCHIVE:
            # Somebody may still be packing it; one that lies there broken keeps nobody waiting.
            return FileRead(Taken(), is_whole=file.is_closed, is_broken=True)
        if place is None:
            return FileRead(Taken(), is_whole=True)
        return _read_on(way, file, stream, place)


def read_stream(way: Way, stream: BufferedIOBase) -> Taken:
    """Read what has no cursor, such as standard input, to its end."""
    taken = Taken()
    lines = Lines(stream, offset=0, before=b"", is_closed=True)
    with read_ahead(_pieces(way, lines, offset=0)) as pieces:
        for piece in pieces:
            taken += way.take(piece.batch)
            way.told("-", taken)
    return taken


def _read_on(way: Way, file: FoundFile, stream: BufferedIOBase, place: Place) -> FileRead:
    row = place.row
    lines = Lines(stream, offset=row.offset, before=place.before, is_closed=file.is_closed)
    taken = Taken()
    # Most files rest: what needs no second batch needs no thread.
    found = _pieces(way, lines, offset=row.offset)
    first = next(found)
    taken += _take_piece(way, file, place, first)
    if not first.is_last:
        with read_ahead(found) as pieces:
            for piece in pieces:
                taken += _take_piece(way, file, place, piece)
                way.told(file.name, taken)
    return FileRead(taken, lines.has_ended, lines.is_cut, lines.is_broken)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A batch, and where it leaves the file. `has_ended`: there is no more in the file now; `is_last`: no
    more is read of it, for want of time perhaps."""

    batch: Batch
    offset: int
    mark: str
    has_ended: bool
    is_last: bool


def _take_piece(way: Way, file: FoundFile, place: Place, piece: _Piece) -> Taken:
    row, batch = place.row, piece.batch
    is_closed = piece.has_ended and file.is_closed
    if not (batch.bytes or batch.refused or _is_worth_writing(way, file, place, is_closed)):
        return Taken()
    if row._state.adding:
        way.known.settle(row, offset=piece.offset)
    cursor = FileCursor(row, piece.offset, piece.mark, is_at_end=piece.has_ended, is_closed=is_closed)
    return way.take(batch, cursor)


def _is_worth_writing(way: Way, file: FoundFile, place: Place, is_closed: bool) -> bool:
    """Whether a cursor that has not moved says something new all the same. Folders are looked at every few
    seconds, and most files in them rest."""
    row = place.row
    if row._state.adding:
        return False
    if is_closed != row.is_closed or (file.is_packed and place.is_renamed):
        return True
    return way.now - row.seen_at > (_CLOSED_SEEN if is_closed else _OPEN_SEEN)


def _pieces(way: Way, lines: Lines, *, offset: int) -> Iterator[_Piece]:
    """What the lines say; the last piece, perhaps empty, when there is nothing more, or no time."""
    batch = Batch(way.stager)
    for line in _until_broken(lines):
        length = _read_line(way, batch, line, offset)
        offset += length
        batch.bytes += length
        batch.lines += 1
        if batch.lines % _LOOK_UP_LINES == 0 or length > _LOOK_UP_BYTES:
            is_late = time.monotonic() > way.deadline_s
            if is_late or batch.is_full:
                yield _Piece(batch, offset, lines.mark_at(offset), has_ended=False, is_last=is_late)
                batch = Batch(way.stager)
            if is_late:
                return
    if lines.is_broken and lines.is_closed:
        batch.refuse(Refused(offset, 0, BROKEN_PACKING, "", hashlib.sha256()))
        # It is no line.
        batch.lines += 1
        lines.has_ended = True
    yield _Piece(batch, offset, lines.mark_at(offset), lines.has_ended, is_last=True)


def _read_line(way: Way, batch: Batch, line: bytes | LongLine, offset: int) -> int:
    """Put into the batch what a line says; its length."""
    if isinstance(line, LongLine):
        batch.refuse(Refused(offset, line.length, LineProblem.TOO_LONG, "", line.digest))
        return line.length
    try:
        entry = way.reader.read(line)
        problem = None if entry is None else batch.add(entry)
    except UnreadableLine as unreadable:
        batch.refuse_line(line, offset=offset, reason=unreadable.reason, detail=unreadable.detail)
    except SoftTimeLimitExceeded:
        # It comes whatever is being done; the line is not to blame.
        raise
    except Exception as failure:  # noqa: BLE001 - a line that a reader did not foresee stops no feed
        batch.refuse_line(line, offset=offset, reason=READER_FAILED, detail=type(failure).__name__)
    else:
        if problem is not None:
            batch.refuse_line(line, offset=offset, reason=problem, detail="")
    return len(line)


def _until_broken(lines: Lines) -> Iterator[bytes | LongLine]:
    """All that can be unpacked."""
    try:
        yield from lines
    except BROKEN_ARCHIVE:
        lines.is_broken = True
