"""Which file it is that lies there, whatever it is called, and how far it has been read.

A file is known by its first bytes and by those before its cursor. So a rename, a copy, and packing with gzip
leave it the same file, and one that was emptied or begun anew is another.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import stat
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from io import BufferedIOBase
from pathlib import Path
from typing import Final

from portal.kit.ids import uuid7
from quotas.models import FeedFile
from quotas.reconciliation.ingest.lines import MARK_BYTES, mark_of
from quotas.reconciliation.ingest.source import FeedSource

HEAD_BYTES: Final = 1024
# Cursors of files that nobody has seen for so long are not looked for; such a file would be read again.
REMEMBERED: Final = timedelta(days=90)
# What reading a packed file may fail with.
BROKEN_ARCHIVE: Final = (EOFError, zlib.error, gzip.BadGzipFile)
_PACKED: Final = ".gz"
_OTHERWISE_PACKED: Final = (".bz2", ".xz", ".zst", ".lz4", ".zip")
_UNFINISHED: Final = (".tmp", ".swp", ".part")
_ROTATED: Final = re.compile(r".*\.[0-9]{1,4}")
# A file that was rotated away and has not been written to for so long is closed; another one after longer.
_ROTATED_STILL_S: Final = 60.0
_STILL_S: Final = 3600.0
# As much as a cursor has room for.
_MAX_NAME: Final = 500


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read. `name`: how its cursor calls it."""

    path: Path
    name: str
    size: int
    is_closed: bool

    @property
    def is_packed(self) -> bool:
        return self.path.suffix == _PACKED


def files_of_folder(folder: Path, *, now_s: float) -> tuple[list[FoundFile], list[str]]:
    """The files in it, those that were written to least lately first, and what is wrong with those that
    cannot be read because of what they are. Folders inside are left alone. Errors: OSError."""
    found: list[tuple[float, FoundFile]] = []
    unreadable: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix in _UNFINISHED or not path.is_file():
            continue
        if path.is_symlink():
            # One to a file beside it, as engines have for their newest, names what is read anyway.
            if path.resolve().parent != folder.resolve():
                unreadable.append(f"{name_of(path)} is a link to elsewhere")
            continue
        if path.suffix in _OTHERWISE_PACKED:
            unreadable.append(f"{name_of(path)} cannot be unpacked")
            continue
        try:
            state = path.stat()
        except FileNotFoundError:
            # Rotated away since; it is found under its new name.
            continue
        is_rotated = path.suffix == _PACKED or _ROTATED.fullmatch(path.name) is not None
        is_closed = now_s - state.st_mtime > (_ROTATED_STILL_S if is_rotated else _STILL_S)
        found.append((state.st_mtime, FoundFile(path, name_of(path), state.st_size, is_closed)))
    found.sort(key=lambda one: one[0])
    return [file for _, file in found], unreadable


def name_of(path: Path, *, is_whole: bool = False) -> str:
    """What a file is called, or all of its path, as text: the disk's names are bytes of any kind."""
    text = os.fsencode(path if is_whole else path.name).decode("utf-8", "backslashreplace")
    return text[-_MAX_NAME:]


@contextmanager
def opened(file: FoundFile) -> Iterator[BufferedIOBase]:
    """The file's content, unpacked. Errors: OSError; BROKEN_ARCHIVE while it is read."""
    with open(file.path, "rb", opener=_open_file) as plain:
        if file.is_packed:
            with gzip.GzipFile(fileobj=plain, mode="rb") as unpacked:
                yield unpacked
        else:
            yield plain


def _open_file(path: str, flags: int) -> int:
    """A file and nothing else: what was one may have become a pipe that nobody writes to, or a link, since
    it was found. Errors: OSError."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", path)
    return descriptor


@dataclass(frozen=True, slots=True)
class Place:
    """A known or new file, opened: the stream stands at the row's offset, behind `before`."""

    row: FeedFile
    before: bytes
    is_renamed: bool = False


class KnownFiles:
    """The cursors of one feed."""

    def __init__(self, feed: FeedSource, *, now: datetime) -> None:
        self._feed = feed
        self._now = now
        self._by_head: dict[str, list[FeedFile]] = defaultdict(list)
        self._lengths: set[int] = set()
        for row in FeedFile.objects.filter(feed_id=feed.id, seen_at__gt=now - REMEMBERED):
            self._remember(row)

    def place(self, file: FoundFile, stream: BufferedIOBase) -> Place | None:
        """Where to read on; None when nothing can have come since the file was last read.

        Errors: OSError, BROKEN_ARCHIVE.
        """
        head = _read_exactly(stream, HEAD_BYTES)
        for row in self._candidates(head):
            if file.is_packed and row.is_closed and row.name == file.name:
                return None
            before = self._bytes_before(file, stream, row.offset)
            if before is not None and mark_of(before) == row.mark:
                is_renamed = row.name != file.name
                row.name = file.name
                return Place(row, before, is_renamed)
        stream.seek(0)
        row = FeedFile(id=uuid7(), feed_id=self._feed.id, name=file.name, seen_at=self._now)
        # Of the first lines, because files grow: what is read at once first settles what it is known by.
        row.identity = head.hex()
        return Place(row, b"")

    def settle(self, row: FeedFile, *, offset: int) -> None:
        """Give a row that is not stored yet its identity: the digest of its first bytes, up to `offset`; of
        one that broke off within its first line, of what there is. Every file begins with no bytes."""
        head = bytes.fromhex(row.identity)[: offset or None]
        base = _key(head)
        twins = len(self._by_head[base])
        row.identity = f"{base}-{twins}" if twins else base
        self._remember(row)

    def _remember(self, row: FeedFile) -> None:
        length, digest = row.identity.split("-")[:2]
        self._lengths.add(int(length))
        self._by_head[f"{length}-{digest}"].append(row)

    def _candidates(self, head: bytes) -> Iterable[FeedFile]:
        keys = [_key(head[:length]) for length in self._lengths if length <= len(head)]
        rows = [row for key in keys for row in self._by_head.get(key, ())]
        return sorted(rows, key=lambda row: row.offset, reverse=True)

    def _bytes_before(self, file: FoundFile, stream: BufferedIOBase, offset: int) -> bytes | None:
        """What stands before the offset, as much as a mark is made of; None when the file is shorter."""
        if not file.is_packed and file.size < offset:
            return None
        start = max(0, offset - MARK_BYTES)
        stream.seek(start)
        before = _read_exactly(stream, offset - start)
        return before if len(before) == offset - start else None


def _key(head: bytes) -> str:
    return f"{len(head)}-{blake2b(head, digest_size=16).hexdigest()}"


def _read_exactly(stream: BufferedIOBase, length: int) -> bytes:
    """As much of `length` as there is. Errors: BROKEN_ARCHIVE, when nothing can be unpacked."""
    parts: list[bytes] = []
    try:
        while length > 0 and (part := stream.read1(length)):
            parts.append(part)
            length -= len(part)
    except BROKEN_ARCHIVE:
        if not parts:
            raise
    return b"".join(parts)
