"""The faults that were injected, each with what it befell: what a reader of the feeds ought to find."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from devstack.engines.feeds.faults import FaultName
from devstack.engines.feeds.told import FeedFormat

MAX_INJECTED = 200_000


class Injected(msgspec.Struct, frozen=True):
    """One fault. `number` counts from 1. `feed` is the format that it concerns, None for a fault of the
    engine or of an answer. `wire_id` is that of the record or call that it befell. `file` is the file's name
    at that time."""

    number: int
    fault: FaultName
    feed: FeedFormat | None
    wire_id: str | None
    file: str | None
    unix: float
    details: dict[str, str | int | float]


class Injections:
    """The last `limit` of them, None: all; `sink` is told of each."""

    def __init__(
        self, sink: Callable[[Injected], None] | None = None, *, limit: int | None = MAX_INJECTED
    ) -> None:
        self.entries: deque[Injected] = deque(maxlen=limit)
        self._number = 0
        self._sink = sink

    def add(
        self,
        fault: FaultName,
        *,
        feed: FeedFormat | None = None,
        wire_id: str | None = None,
        file: str | None = None,
        **details: str | int | float,
    ) -> None:
        """Books a fault that has happened."""
        self._number += 1
        number = self._number
        entry = Injected(number, fault, feed, wire_id, file, time.time(), details)
        self.entries.append(entry)
        if self._sink is not None:
            self._sink(entry)

    def clear(self) -> None:
        """Forgets all; numbers begin at 1 again."""
        self.entries.clear()
        self._number = 0

    def since(self, number: int) -> list[Injected]:
        """Those with a greater number, oldest first."""
        return [entry for entry in self.entries if entry.number > number]
