"""What a record is called: its key is its content, so the same facts are the same row by whatever way they
came.

subject_id: our attempt, or of a call that is not ours an id made of its time and of what names it.
content_id: a digest over the facts. File, format and way in are part of neither, nor is our attempts' time,
which two feeds of the same backend tell differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final
from uuid import UUID

from django.db import connections

from models_catalog.engines.feeds import FeedEntry
from tenants.scope import scope_alias

# A backend's clock may be ahead of ours, by no more than this.
AHEAD: Final = timedelta(hours=1)
STAGED_COLUMNS: Final = (
    "subject_id, content_id, part, wire_id, prompt_tokens, cached_tokens, completion_tokens, "
    "reasoning_tokens, finish, event_at"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY_MS: Final = 86_400_000
# As COPY writes that there is none.
_NULL: Final = "\\N"
_DAY_OF_PARTITION: Final = re.compile(r"quotas_feedrecord_([0-9]{8})")
_PARTITIONS: Final = (
    "SELECT inhrelid::regclass::text FROM pg_catalog.pg_inherits "
    "WHERE inhparent = 'public.quotas_feedrecord'::regclass"
)


class NotTaken(StrEnum):
    """Why a record that could be read is not taken."""

    OUT_OF_RANGE = "out_of_range"
    # Of a call that is not ours: nothing says when, so nothing says whether it was told before.
    NO_TIME = "no_time"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which moments records have a place at, in milliseconds of Unix time: days, and half-open the whole."""

    lowest_ms: int
    highest_ms: int
    days: frozenset[int]

    def have(self, moment_ms: int) -> bool:
        return self.lowest_ms <= moment_ms < self.highest_ms and moment_ms // _DAY_MS in self.days


def record_bounds(*, now: datetime) -> Bounds:
    """The days that have a partition, to AHEAD of now."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_PARTITIONS)
        days = frozenset(
            _milliseconds(datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC)) // _DAY_MS
            for (name,) in cursor.fetchall()
            if (found := _DAY_OF_PARTITION.search(name))
        )
    return Bounds(min(days, default=0) * _DAY_MS, _milliseconds(now + AHEAD), days)


class Stager:
    """Turns entries of one backend into lines of COPY's text format for `feed_staging`."""

    def __init__(self, *, backend_id: UUID, bounds: Bounds, received_at: datetime) -> None:
        self._backend = backend_id.hex
        self._bounds = bounds
        self._received = received_at.isoformat()

    def stage(self, entry: FeedEntry) -> str | NotTaken:
        bounds = self._bounds
        at = entry.finished_at
        at_ms = -1 if at is None else (at - _EPOCH) // _MILLISECOND
        if at is not None and not bounds.have(at_ms):
            return NotTaken.OUT_OF_RANGE
        attempt = entry.attempt_id
        if attempt is None:
            if at is None:
                return NotTaken.NO_TIME
            subject = foreign_subject(self._backend, entry.wire_id, entry.event_id, at_ms)
            named = entry.wire_id
        else:
            number = attempt.int
            if not bounds.have(number >> 80):
                return NotTaken.OUT_OF_RANGE
            # Engines decorate our id, each feed in its own manner.
            named = subject = f"{number:032x}"
        cached, reasoning = entry.cached_tokens, entry.reasoning_tokens
        facts = (
            f"{self._backend}|{entry.part}|{entry.prompt_tokens}|{cached}|{entry.completion_tokens}|"
            f"{reasoning}|{entry.finish}|{named}"
        )
        wire = entry.wire_id
        if "\\" in wire:
            wire = wire.replace("\\", "\\\\")
        content = blake2b(facts.encode(), digest_size=16).hexdigest()
        return (
            f"{subject}\t{content}\t{entry.part}\t{wire}\t{entry.prompt_tokens}\t"
            f"{_NULL if cached is None else cached}\t{entry.completion_tokens}\t"
            f"{_NULL if reasoning is None else reasoning}\t{entry.finish}\t"
            f"{self._received if at is None else at.isoformat()}\n"
        )


def foreign_subject(backend: str, wire_id: str, event_id: str, moment_ms: int) -> str:
    """A UUID of version 8, which none of our ids has, in hex: its time in the first 48 bits, so that it lies
    in the partition of its day, and a digest."""
    named = f"{backend}|{len(event_id)}|{event_id}|{wire_id}"
    digest = int.from_bytes(blake2b(named.encode(), digest_size=10).digest(), "big")
    number = moment_ms << 80 | 0x8 << 76 | (digest >> 68) << 64 | 0b10 << 62 | digest & (2**62 - 1)
    return f"{number:032x}"


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
