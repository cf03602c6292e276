"""Group commit: many callers, one flush.

Under light load a flush holds one item and waits for nobody; while all flushers are busy, items gather and
the next free flusher takes them together, after a few milliseconds in which others may join. Items belong to
lanes (a tenant each). A lane is in at most one flush at a time, so its order is kept and a process never
waits for a lock of its own. A lane that turns out to be locked by somebody else leaves the common path and is
flushed on its own until it is empty again.
"""

import asyncio
import contextvars
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Final, Generic

from portal.kit.flights import Deadlines, Flights
from portal.kit.flushing import (
    BUSY,
    Answer,
    BatchRunner,
    Busy,
    Closed,
    DeadlineExceeded,
    Entries,
    Entry,
    FlushBroken,
    FlushTimeout,
    Item,
    Lane,
    LaneLocked,
    LaneState,
    QueueFull,
    pause_s,
)

__all__ = [
    "BUSY",
    "MAX_DEADLINE_S",
    "Busy",
    "Closed",
    "DeadlineExceeded",
    "Flights",
    "FlushBroken",
    "FlushTimeout",
    "GroupCommit",
    "LaneLocked",
    "QueueFull",
]

MAX_DEADLINE_S: Final = 3600.0
# A batch of more than one that ended so long ago says that more is coming.
_BUSY_S: Final = 0.05
_CANCEL_GRACE_S: Final = 5.0
# How often a locked lane looks whether it has landed elsewhere.
_FLIGHT_PAUSE_S: Final = 0.005

logger = logging.getLogger(__name__)


class GroupCommit(Generic[Item, Answer]):
    """Gathers the items of concurrent callers into batches. Belongs to one event loop.

    flush: takes a batch of one to `max_batch` items with distinct keys, of any lanes, and returns one answer
        per item, in order. It never waits for the lock of a lane but answers BUSY. It is all or nothing: when
        it raises, nothing of the batch has happened, unless `is_transient` says true of the exception.
    lane_flush: the same for items of one lane that was found locked. It may wait for the lock, for a bounded
        time, and then answers BUSY or raises LaneLocked; these items are tried again until their deadlines.
    is_transient: true for failures that say nothing about the items, such as a broken connection. The batch
        may have happened or not, and is tried again until its items' deadlines; so flushing an item twice
        must come to the same as flushing it once. Any other failure of several items is narrowed down by
        halves, so that only the items that cause it get it.
    on_orphan: called with the item and its answer when the answer came after the submitter had left.
    max_queue: how many items may wait. Locked lanes may fill half of it together and an eighth of it each, so
        that they leave room for everybody else.
    max_lanes: how many locked lanes are flushed at the same time; further ones wait for their turn.
    flush_timeout_s: the longest a single flush may take before it is cancelled, which counts as transient.
    patience_s: while flushes break off for reasons that are not the items', how long a submitter waits for
        things to get better; None: until its deadline. Its item is tried on if it may have happened.
    gather_s: how long, under load, the oldest waiting item waits for company at least.
    flights: shared with group commits whose lanes are the same rows, so that they take turns.
    """

    def __init__(
        self,
        name: str,
        *,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Busy]]],
        lane_flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Busy]]],
        lane_of: Callable[[Item], Hashable],
        key_of: Callable[[Item], Hashable],
        is_transient: Callable[[BaseException], bool],
        on_orphan: Callable[[Item, Answer], None] | None = None,
        max_batch: int = 200,
        max_queue: int = 5000,
        flushers: int = 2,
        max_lanes: int = 64,
        flush_timeout_s: float = 30.0,
        patience_s: float | None = None,
        gather_s: float = 0.0,
        flights: Flights | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(max_batch, max_queue, flushers, max_lanes) < 1 or not 0 < flush_timeout_s < math.inf:
            raise ValueError("the limits of a group commit are at least one, and its time limit is finite")
        self.name = name
        self._flush = flush
        self._lane_flush = lane_flush
        self._lane_of = lane_of
        self._key_of = key_of
        self._clock = clock
        self._runner: BatchRunner[Item, Answer] = BatchRunner(
            name, is_transient=is_transient, on_orphan=on_orphan, flush_timeout_s=flush_timeout_s, clock=clock
        )
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_slow = max(1, max_queue // 2)
        self._max_slow_lane = max(1, max_queue // 8)
        self._max_flushers = flushers
        self._lanes: dict[Hashable, Lane[Item, Answer]] = {}
        # The lanes with waiting entries that are in no flush, in the order in which they are served.
        self._ready: OrderedDict[Lane[Item, Answer], None] = OrderedDict()
        self._lane_slots = asyncio.Semaphore(max_lanes)
        self._queued = 0
        self._slow_queued = 0
        self._flushers = 0
        self._flusher_starting = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._runner.on_broken = self._broke_off
        self._patience_s = math.inf if patience_s is None else patience_s
        self._gather_s = gather_s
        self._flights = flights or Flights()
        self._flights.join(self._unblock, self._lose_patience)
        self._is_blocked = self._has_given_up = False
        self._deadlines = Deadlines(self._expire, clock)
        # When the oldest item began to wait since the last flush, and how the last one was.
        self._waiting_since_s = 0.0
        self._landed_at_s = -math.inf
        self._last_size = 0

    @property
    def queued(self) -> int:
        """Items that wait for a flush."""
        return self._queued

    @property
    def in_flight(self) -> int:
        """Items in batches that are being flushed."""
        return self._runner.in_flight

    @property
    def observe(self) -> Callable[[int, float], None] | None:
        """Called, when set, with the batch size and the duration in seconds of every flush."""
        return self._runner.observe

    @observe.setter
    def observe(self, callback: Callable[[int, float], None] | None) -> None:
        self._runner.observe = callback

    async def submit(self, item: Item, deadline_s: float) -> Answer:
        """Have the item flushed within `deadline_s` seconds from now and return its answer.

        Raises QueueFull or Closed at once, DeadlineExceeded, or what the flush of this very item raised.
        When the caller is cancelled or the deadline passes, an item that still waits is never flushed, and
        the answer of one that is being flushed goes to `on_orphan`.
        """
        entry = self._enqueue(item, deadline_s)
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._abandon(entry)
            raise

    def send(self, item: Item, deadline_s: float) -> "asyncio.Future[Answer]":
        """The same for who waits by a callback; the future must not be cancelled."""
        return self._enqueue(item, deadline_s).future

    async def close(self, timeout_s: float) -> None:
        """Refuse new items, flush what waits, and give up after `timeout_s` seconds: the rest raises Closed.

        No task of this instance is left when it returns, unless a flush ignores its cancellation.
        """
        self._closing = True
        give_up_at = self._clock() + timeout_s
        while self._tasks and (remaining_s := give_up_at - self._clock()) > 0:
            await asyncio.wait(set(self._tasks), timeout=remaining_s)
        if self._tasks:
            self._is_blocked = self._has_given_up = True
            cancelled = set(self._tasks)
            for task in cancelled:
                task.cancel()
            _, stuck = await asyncio.wait(cancelled, timeout=_CANCEL_GRACE_S)
            if stuck:
                logger.error(
                    "flushes ignore their cancellation", extra={"batcher": self.name, "count": len(stuck)}
                )
        for lane in list(self._lanes.values()):
            for entry in list(lane.entries):
                self._unqueue(entry)
                entry.fail(Closed(f"{self.name} was closed before the item was flushed"))
        self._lanes.clear()
        self._deadlines.close()

    # Entries come and go.

    def _enqueue(self, item: Item, deadline_s: float) -> Entry[Item, Answer]:
        if self._closing:
            raise Closed(f"{self.name} is closed")
        if not deadline_s <= MAX_DEADLINE_S:
            raise ValueError(f"a deadline is at most {MAX_DEADLINE_S:.0f} seconds away")
        if deadline_s <= 0:
            raise DeadlineExceeded("the deadline had passed before the item was submitted")
        key, lane_id = self._key_of(item), self._lane_of(item)
        hash(key)  # A key that cannot be hashed fails its own caller here, and not a whole batch later.
        lane = self._lanes.get(lane_id)
        if self._queued >= self._max_queue or (lane is not None and self._is_overfull(lane)):
            raise QueueFull(f"{self.name} has no room")
        if lane is None:
            lane = self._lanes[lane_id] = Lane(lane_id)
        loop = asyncio.get_running_loop()
        entry = Entry(item, key, lane, loop.create_future(), self._clock(), deadline_s)
        self._deadlines.add(entry, deadline_s)
        if not self._ready:
            self._waiting_since_s = self._clock()
        lane.entries[entry] = None
        self._queued += 1
        if lane.state is LaneState.READY:
            self._ready[lane] = None
            if self._is_blocked and not self._flights.is_flying(lane_id):
                self._is_blocked = False
            self._wake()
        elif lane.state is LaneState.SLOW:
            self._slow_queued += 1
        return entry

    def _is_overfull(self, lane: Lane[Item, Answer]) -> bool:
        return lane.state is LaneState.SLOW and (
            len(lane.entries) >= self._max_slow_lane or self._slow_queued >= self._max_slow
        )

    def _unqueue(self, entry: Entry[Item, Answer]) -> None:
        """Take a waiting entry out of its lane, and the lane away with its last entry."""
        lane = entry.lane
        self._pull(entry)
        if not lane.entries and lane.state is LaneState.READY:
            del self._ready[lane]
            del self._lanes[lane.lane_id]

    def _pull(self, entry: Entry[Item, Answer]) -> None:
        del entry.lane.entries[entry]
        entry.queued = False
        self._queued -= 1
        if entry.lane.state is LaneState.SLOW:
            self._slow_queued -= 1

    def _expire(self, entry: Entry[Item, Answer]) -> None:
        if entry.queued:
            self._unqueue(entry)
        entry.expire()

    def _broke_off(self, broken: Sequence[Entry[Item, Answer]]) -> None:
        """Whoever has waited for too long is told now, and not at the deadline. Who shares the lanes hears of
        it too: as long as these fly here, no flush there can find it out."""
        too_old_s = self._clock() - self._patience_s
        for entry in broken:
            if entry.since <= too_old_s:
                entry.expire()
        self._flights.broke_off()

    def _lose_patience(self) -> None:
        too_old_s = self._clock() - self._patience_s
        if too_old_s == -math.inf:
            return
        waiting = [entry for lane in self._lanes.values() for entry in lane.entries]
        for entry in waiting:
            if entry.since <= too_old_s and not entry.uncertain:
                self._expire(entry)

    def _abandon(self, entry: Entry[Item, Answer]) -> None:
        """The submitter was cancelled."""
        future = entry.future
        if future.done() and not future.cancelled():
            # The outcome was there, but the cancellation reached the submitter before it could take it.
            if future.exception() is None:
                self._runner.orphan(entry, future.result())
            return
        future.cancel()
        if entry.queued and not entry.uncertain:
            self._unqueue(entry)

    # The common path.

    def _wake(self) -> None:
        """Start a flusher if there is work and room for one; what is submitted before it runs joins in."""
        has_room = not self._flusher_starting and self._flushers < self._max_flushers
        if self._ready and has_room and not self._is_blocked:
            self._flusher_starting = True
            self._flushers += 1
            self._start(self._run_flusher())

    def _unblock(self) -> None:
        """Lanes have landed."""
        self._is_blocked = self._has_given_up
        self._wake()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # An empty context, or everything logged here would carry the ids of whoever came first.
        task = asyncio.get_running_loop().create_task(work, name=self.name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_flusher(self) -> None:
        self._flusher_starting = False
        try:
            while self._ready:
                await self._gather()
                batch, lanes = self._take()
                if not batch:
                    # The lanes of all that waits fly with another group commit, which wakes this one.
                    self._is_blocked = True
                    return
                self._wake()
                try:
                    busy = await self._runner.run(self._flush, batch)
                    self._land(lanes, busy)
                finally:
                    self._landed_at_s, self._last_size = self._clock(), len(batch)
                    self._flights.end([lane.lane_id for lane in lanes])
                # Whoever was woken by that, and waits for these lanes, goes first.
                await asyncio.sleep(0)
        finally:
            self._flushers -= 1

    async def _gather(self) -> None:
        """Under load, let what is on its way join. A lone caller after a lone caller waits for nobody."""
        if not self._gather_s or self._closing or self._queued >= self._max_batch or self._last_size < 2:
            return
        now_s = self._clock()
        if now_s - self._landed_at_s > _BUSY_S:
            return
        left_s = self._waiting_since_s + self._gather_s - now_s
        if left_s > 0:
            await asyncio.sleep(left_s)

    def _take(self) -> tuple[Entries[Item, Answer], list[Lane[Item, Answer]]]:
        """The next batch, empty only when every lane that is ready flies elsewhere, and its lanes."""
        batch: Entries[Item, Answer] = []
        keys: set[Hashable] = set()
        lanes: list[Lane[Item, Answer]] = []
        skipped: list[Lane[Item, Answer]] = []
        while self._ready and len(batch) < self._max_batch:
            lane, _ = self._ready.popitem(last=False)
            if not self._flights.is_flying(lane.lane_id) and self._move(lane, batch, keys):
                lane.state = LaneState.FLYING
                self._flights.begin(lane.lane_id)
                lanes.append(lane)
            else:
                skipped.append(lane)
        for lane in reversed(skipped):
            self._ready[lane] = None
            self._ready.move_to_end(lane, last=False)
        return batch, lanes

    def _move(self, lane: Lane[Item, Answer], batch: Entries[Item, Answer], keys: set[Hashable]) -> bool:
        """Move entries from the lane to the batch, up to the first whose key is in it; true if any moved."""
        size_before = len(batch)
        while lane.entries and len(batch) < self._max_batch:
            entry = next(iter(lane.entries))
            if entry.key in keys:
                break
            self._pull(entry)
            keys.add(entry.key)
            batch.append(entry)
        return len(batch) > size_before

    def _land(self, lanes: list[Lane[Item, Answer]], busy: Entries[Item, Answer]) -> None:
        """After a common flush: each lane is ready again, gone, or goes its own way because it is locked."""
        locked = self._put_back(busy)
        for lane in lanes:
            if lane in locked:
                lane.state = LaneState.SLOW
                self._slow_queued += len(lane.entries)
                self._start(self._run_lane(lane))
            elif lane.entries:
                lane.state = LaneState.READY
                self._ready[lane] = None
            else:
                del self._lanes[lane.lane_id]

    def _put_back(self, busy: Entries[Item, Answer]) -> set[Lane[Item, Answer]]:
        """Queue entries again, in front and in their order; those that nobody needs any more stay out."""
        lanes = set()
        for entry in reversed(self._runner.wanted(busy)):
            entry.lane.entries[entry] = None
            entry.lane.entries.move_to_end(entry, last=False)
            entry.queued = True
            self._queued += 1
            if entry.lane.state is LaneState.SLOW:
                self._slow_queued += 1
            lanes.add(entry.lane)
        return lanes

    # The path of a locked lane.

    async def _run_lane(self, lane: Lane[Item, Answer]) -> None:
        """Flush one lane until nothing of it waits. While it pauses, another lane may use its slot."""
        pauses = 0
        while lane.entries:
            if self._flights.is_flying(lane.lane_id):
                await asyncio.sleep(_FLIGHT_PAUSE_S)
                continue
            async with self._lane_slots:
                if self._flights.is_flying(lane.lane_id):
                    # It took off elsewhere while this waited for the slot.
                    continue
                batch: Entries[Item, Answer] = []
                self._move(lane, batch, set())
                self._flights.begin(lane.lane_id)
                try:
                    busy = await self._runner.run(self._lane_flush, batch) if batch else []
                finally:
                    self._flights.end((lane.lane_id,))
            if self._put_back(busy):
                await asyncio.sleep(pause_s(pauses))
                pauses += 1
            else:
                pauses = 0
        del self._lanes[lane.lane_id]
