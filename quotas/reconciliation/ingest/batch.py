"""What is taken at once: staged records, and what could not be read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from models_catalog.engines.feeds import FeedEntry
from quotas.reconciliation.ingest.identity import NotTaken, Stager

MAX_ENTRIES: Final = 20_000
MAX_REFUSED: Final = 1_000
MAX_BYTES: Final = 32 * 2**20
# A file of nothing but rubbish makes few rows: further ones hold whole runs of lines, no longer than this.
_SINGLE: Final = 200
MAX_RUN_BYTES: Final = 2**20


@dataclass(slots=True)
class Refused:
    """One or several adjacent lines that could not be read or taken. offset: in the file, or the number of
    the item in a pushed body. `body` is what is kept of a pushed one."""

    offset: int
    length: int
    reason: str
    detail: str
    digest: hashlib._Hash | bytes = field(repr=False)
    body: str = field(default="", repr=False)
    lines: int = 1

    @property
    def sha256(self) -> bytes:
        return self.digest if isinstance(self.digest, bytes) else self.digest.digest()


class Batch:
    """Gathers entries until they are taken."""

    def __init__(self, stager: Stager) -> None:
        self._stage = stager.stage
        self.rows: list[str] = []
        self.refused: list[Refused] = []
        self.refused_lines = 0
        self.lines = 0
        self.bytes = 0
        self.last_event_at: datetime | None = None

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= MAX_ENTRIES or len(self.refused) >= MAX_REFUSED or self.bytes >= MAX_BYTES

    def add(self, entry: FeedEntry) -> NotTaken | None:
        """Why the entry cannot be taken, or None when it will be."""
        row = self._stage(entry)
        if isinstance(row, NotTaken):
            return row
        self.rows.append(row)
        at = entry.finished_at
        if at is not None and (self.last_event_at is None or at > self.last_event_at):
            self.last_event_at = at
        return None

    def refuse_line(self, line: bytes, *, offset: int, reason: str, detail: str) -> None:
        """A line of a file, with its line end."""
        self.refused_lines += 1
        last = self.refused[-1] if len(self.refused) >= _SINGLE else None
        if (
            last is not None
            and not isinstance(last.digest, bytes)
            and last.offset + last.length == offset
            and last.reason == reason
            and last.length + len(line) <= MAX_RUN_BYTES
        ):
            last.digest.update(line)
            last.length += len(line)
            last.lines += 1
            return
        self.refused.append(Refused(offset, len(line), reason, detail, hashlib.sha256(line)))

    def refuse(self, refused: Refused) -> None:
        self.refused_lines += 1
        self.refused.append(refused)
