"""What keeps group commits apart that share lanes, and what tells their entries that their time is over.

`portal.kit.batching` exports what other packages need of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from portal.kit.flushing import Entry


class Flights:
    """Lanes that are in a flush of any of the group commits that share this: none of them takes what another
    one has, because its statement would only find the lane locked. Belongs to one event loop."""

    def __init__(self) -> None:
        self._flying: set[Hashable] = set()
        self._members: list[Callable[[], None]] = []
        self._to_be_told: list[Callable[[], None]] = []

    def join(self, wake: Callable[[], None], on_broken: Callable[[], None]) -> None:
        """wake: called when lanes have landed; on_broken: when a flush broke off and is tried again."""
        self._members.append(wake)
        self._to_be_told.append(on_broken)

    def is_flying(self, lane_id: Hashable) -> bool:
        return lane_id in self._flying

    def begin(self, lane_id: Hashable) -> None:
        self._flying.add(lane_id)

    def end(self, lane_ids: Iterable[Hashable]) -> None:
        self._flying.difference_update(lane_ids)
        for wake in self._members:
            wake()

    def broke_off(self) -> None:
        for tell in self._to_be_told:
            tell()


class Deadlines:
    """Expires entries in time. Those that get the same time are due in the order in which they came, so one
    timer does for all of them; setting one for each would cost as much as the rest of its queueing."""

    def __init__(self, expire: Callable[[Entry[Any, Any]], None], clock: Callable[[], float]) -> None:
        self._expire = expire
        self._clock = clock
        self._entries: dict[float, deque[Entry[Any, Any]]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, entry: Entry[Any, Any], deadline_s: float) -> None:
        entries = self._entries.get(deadline_s)
        if entries is None:
            entries = self._entries[deadline_s] = deque()
        # They end about in the order in which they come, so this keeps the queue as short as it can be.
        while entries and entries[0].future.done():
            entries.popleft()
        entries.append(entry)
        if deadline_s not in self._timers:
            self._arm(deadline_s, deadline_s)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._entries.clear()

    def _arm(self, deadline_s: float, after_s: float) -> None:
        self._timers[deadline_s] = asyncio.get_running_loop().call_later(after_s, self._look, deadline_s)

    def _look(self, deadline_s: float) -> None:
        del self._timers[deadline_s]
        entries = self._entries[deadline_s]
        while entries:
            entry = entries[0]
            left_s = entry.deadline - self._clock()
            if not entry.future.done() and left_s > 0:
                self._arm(deadline_s, left_s)
                return
            entries.popleft()
            if not entry.future.done():
                self._expire(entry)
        del self._entries[deadline_s]
