"""One flush of a group commit: every item of a batch gets exactly one outcome.

`portal.kit.batching` gathers the batches and is what other packages import; it exports these names too.
"""

import asyncio
import enum
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.25

logger = logging.getLogger(__name__)


class Busy(enum.Enum):
    """The type of BUSY."""

    BUSY = "busy"


BUSY: Final = Busy.BUSY
"""What a flush answers for an item whose lane is locked by somebody else: nothing was done for it."""


class QueueFull(Exception):
    """There is no room for this item now; nothing was done for it."""


class DeadlineExceeded(Exception):
    """The item's time is over. The cause, if any, is what went wrong the last time.

    Whether an item whose flush was under way, or broke off midway, was done is unknown.
    """


class Closed(Exception):
    """The group commit takes nothing any more, or gave up on this item because closing took too long."""


class LaneLocked(Exception):
    """A flush may raise this for a whole batch instead of answering BUSY for each item: nothing was done."""


class FlushTimeout(Exception):
    """A flush took longer than it may and was cancelled. Whether it happened is unknown."""


class FlushBroken(Exception):
    """A flush broke its contract: another number of answers than items, or it cancelled itself."""


class LaneState(enum.Enum):
    """READY: waits for the next common flush. FLYING: is in one. SLOW: was found locked, has its own path."""

    READY = enum.auto()
    FLYING = enum.auto()
    SLOW = enum.auto()


class Lane(Generic[Item, Answer]):
    """The waiting entries of one lane, oldest first; leaving from the middle is as cheap."""

    __slots__ = ("entries", "lane_id", "state")

    def __init__(self, lane_id: Hashable) -> None:
        self.lane_id = lane_id
        self.state = LaneState.READY
        self.entries: OrderedDict[Entry[Item, Answer], None] = OrderedDict()


class Entry(Generic[Item, Answer]):
    """One submitted item. Its future is done as soon as nobody waits for the answer any more.

    `since` and `deadline` are readings of the group commit's clock. `uncertain`: a flush of it broke off
    midway, so it may have happened, and only another flush can tell. `last_error` becomes the cause at the
    deadline.
    """

    __slots__ = ("deadline", "future", "item", "key", "lane", "last_error", "queued", "since", "uncertain")

    def __init__(
        self,
        item: Item,
        key: Hashable,
        lane: Lane[Item, Answer],
        future: asyncio.Future[Answer],
        since: float,
        deadline_s: float,
    ) -> None:
        self.item = item
        self.key = key
        self.lane = lane
        self.future = future
        self.since = since
        self.deadline = since + deadline_s
        self.queued = True
        self.uncertain = False
        self.last_error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Give the submitter this error, if it still waits."""
        if not self.future.done():
            self.future.set_exception(error)

    def expire(self) -> None:
        """Tell the submitter, if it still waits, that its time is over."""
        if not self.future.done():
            error = DeadlineExceeded("there was no answer in time")
            error.__cause__ = self.last_error
            self.future.set_exception(error)


Flush = Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Busy]]]
Entries = list[Entry[Item, Answer]]


class BatchRunner(Generic[Item, Answer]):
    """Calls a flush until every entry of a batch has an outcome: an answer, an error, or a locked lane."""

    def __init__(
        self,
        name: str,
        *,
        is_transient: Callable[[BaseException], bool],
        on_orphan: Callable[[Item, Answer], None] | None,
        flush_timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.observe: Callable[[int, float], None] | None = None
        # Called with the entries whose flush broke off and is tried again.
        self.on_broken: Callable[[Sequence[Entry[Item, Answer]]], None] | None = None
        self.in_flight = 0
        self._name = name
        self._is_transient = is_transient
        self._on_orphan = on_orphan
        self._flush_timeout_s = flush_timeout_s
        self._clock = clock

    async def run(self, flush: Flush[Item, Answer], batch: Entries[Item, Answer]) -> Entries[Item, Answer]:
        """Returns, in their order, the entries whose lane is locked; all others have had their outcome."""
        self.in_flight += len(batch)
        try:
            return await self._run_parts(flush, batch)
        except asyncio.CancelledError:
            for entry in batch:
                entry.fail(Closed(f"{self._name} was closed during the flush: its outcome is unknown"))
            raise
        except Exception as error:
            # A defect of ours: nobody is left waiting for it.
            logger.exception("a batch failed outside of its flush", extra={"batcher": self._name})
            for entry in batch:
                entry.fail(error)
            return []
        finally:
            self.in_flight -= len(batch)

    def wanted(self, entries: Entries[Item, Answer]) -> Entries[Item, Answer]:
        """The entries to flush, or flush again: whose submitter waits, or that may have happened already."""
        now = self._clock()
        wanted = []
        for entry in entries:
            if now >= entry.deadline:
                entry.expire()
            elif entry.uncertain or not entry.future.done():
                wanted.append(entry)
        return wanted

    def orphan(self, entry: Entry[Item, Answer], answer: Answer) -> None:
        """Hand over an answer that nobody waits for."""
        if self._on_orphan is None:
            return
        try:
            self._on_orphan(entry.item, answer)
        except Exception:
            logger.exception("the orphan handler failed", extra={"batcher": self._name})

    async def _run_parts(
        self, flush: Flush[Item, Answer], batch: Entries[Item, Answer]
    ) -> Entries[Item, Answer]:
        busy: Entries[Item, Answer] = []
        busy_lanes: set[Lane[Item, Answer]] = set()
        # A stack with the earliest part on top, so that the order within a lane survives the splitting.
        parts = [batch]
        pauses = 0
        while parts:
            part: Entries[Item, Answer] = []
            for entry in self.wanted(parts.pop()):
                (busy if entry.lane in busy_lanes else part).append(entry)
            if not part:
                continue
            answers: Sequence[Answer | Busy]
            try:
                answers = await self._call(flush, part)
            except LaneLocked:
                answers = [BUSY] * len(part)
            except Exception as error:  # noqa: BLE001 - whatever it is, its submitters get it.
                if self._may_pass(error):
                    self._mark_uncertain(part, error)
                    if self.on_broken is not None:
                        self.on_broken(part)
                    parts.append(part)
                    await asyncio.sleep(self._pause_s(part, pauses))
                    pauses += 1
                elif len(part) == 1:
                    part[0].fail(error)
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                continue
            pauses = 0
            locked = self._settle(part, answers)
            busy += locked
            busy_lanes.update(entry.lane for entry in locked)
        return busy

    def _settle(self, part: Entries[Item, Answer], answers: Sequence[Answer | Busy]) -> Entries[Item, Answer]:
        """Hand out the answers; returns the entries that have none because their lane is locked."""
        locked: Entries[Item, Answer] = []
        for entry, answer in zip(part, answers, strict=True):
            if isinstance(answer, Busy):
                entry.last_error = LaneLocked("the lane is locked by somebody else")
                locked.append(entry)
            elif entry.future.done():
                self.orphan(entry, answer)
            else:
                entry.future.set_result(answer)
        return locked

    async def _call(self, flush: Flush[Item, Answer], part: Entries[Item, Answer]) -> Sequence[Answer | Busy]:
        """One call of the flush, bounded in time and measured; raises nothing that is not an Exception
        except the cancellation of this very task."""
        started = self._clock()
        limit = asyncio.timeout(self._flush_timeout_s)
        try:
            async with limit:
                answers = await flush([entry.item for entry in part])
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise FlushBroken("the flush cancelled itself") from error
        except TimeoutError as error:
            if limit.expired():
                raise FlushTimeout(f"a flush took longer than {self._flush_timeout_s} s") from error
            raise
        finally:
            self._report(len(part), self._clock() - started)
        if len(answers) != len(part):
            raise FlushBroken(f"the flush gave {len(answers)} answers for {len(part)} items")
        return answers

    def _report(self, size: int, duration_s: float) -> None:
        if self.observe is None:
            return
        try:
            self.observe(size, duration_s)
        except Exception:
            logger.exception("the observer failed", extra={"batcher": self._name})

    def _may_pass(self, error: Exception) -> bool:
        """Whether trying again makes sense. A broken judge means no."""
        if isinstance(error, FlushTimeout):
            return True
        try:
            return self._is_transient(error)
        except Exception:
            logger.exception("the judge of failures failed", extra={"batcher": self._name})
            return False

    def _mark_uncertain(self, part: Entries[Item, Answer], error: Exception) -> None:
        for entry in part:
            entry.uncertain = True
            entry.last_error = error
        # The kind only: the text of a database's error can hold what people typed.
        details = {"batcher": self._name, "batch_size": len(part), "error": type(error).__name__}
        logger.warning("a flush broke off and is tried again", extra=details)

    def _pause_s(self, part: Entries[Item, Answer], pauses: int) -> float:
        """Before the next try; not beyond the moment when nobody of this part waits any more."""
        left_s = max(entry.deadline for entry in part) - self._clock()
        return max(0.0, min(pause_s(pauses), left_s))


def pause_s(pauses: int) -> float:
    """Seconds to wait after this many pauses in a row: doubling, up to a quarter of a second."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(pauses, 10), _LONGEST_PAUSE_S)
