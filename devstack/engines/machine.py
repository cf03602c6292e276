"""How fast an engine is: slots, and a speed that falls as more sequences share it.

A step of decoding takes time for itself and time for each sequence in it, so one sequence gets
`1 / (1 / tokens_per_s + (c - 1) / total_tokens_per_s)` tokens a second while c run: tokens_per_s alone, and
all together never more than total_tokens_per_s. Prompts are computed one after another at
prefill_tokens_per_s, less what is cached. A call whose directive names a rate keeps that rate.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from devstack.engines.call import Call
from devstack.engines.link import Link
from devstack.engines.options import Speeds


class Pace(Protocol):
    """When the tokens of one call are due. `first_s` is when the first one is."""

    first_s: float

    def due_steps(self, now_s: float) -> int:
        """How many steps are due by then, at least one from `first_s` on."""
        ...

    def due_s(self, step: int, now_s: float) -> float:
        """When a step is due, as far as can be known now."""
        ...


@dataclass(slots=True)
class Steady:
    """So many tokens a second, whatever else runs."""

    first_s: float
    rate_per_s: float

    def due_steps(self, now_s: float) -> int:
        return int((now_s - self.first_s) * self.rate_per_s) + 1

    def due_s(self, step: int, now_s: float) -> float:
        return self.first_s + (step - 1) / self.rate_per_s


@dataclass(slots=True)
class Unpaced:
    """All at once."""

    first_s: float

    def due_steps(self, now_s: float) -> int:
        raise NotImplementedError("nothing is paced")

    def due_s(self, step: int, now_s: float) -> float:
        return self.first_s


@dataclass(slots=True)
class Shared:
    """As much as the machine gives to each of those that run."""

    machine: Machine
    first_s: float
    _base: float | None = None

    def due_steps(self, now_s: float) -> int:
        progress = self.machine.progress(now_s)
        if self._base is None:
            self._base = progress
        return int(progress - self._base) + 1

    def due_s(self, step: int, now_s: float) -> float:
        if self._base is None:
            return self.first_s
        missing = self._base + step - 1 - self.machine.progress(now_s)
        return now_s + missing / self.machine.rate_per_s


@dataclass(slots=True)
class _Waiter:
    sequences: int
    admitted: asyncio.Future[None]


@dataclass(slots=True)
class Machine:
    """The slots and the speed of one engine. `running` and `waiting` count sequences."""

    speeds: Speeds
    running: int = 0
    waiting: int = 0
    is_frozen: bool = False
    _queue: deque[_Waiter] = field(default_factory=deque)
    _prefill_free_s: float = 0.0
    _progress: float = 0.0
    _progress_s: float = field(default_factory=time.perf_counter)

    async def enter(self, call: Call, link: Link) -> bool:
        """Waits for the call's slots, first come, first served. False when the client has left meanwhile."""
        wanted = self._slots_of(call)
        if not self._queue and self._fits(wanted):
            self._take(wanted)
            call.started_s = time.perf_counter()
            return True
        waiter = _Waiter(wanted, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        self.waiting += wanted
        begun_s = time.perf_counter()
        try:
            while not waiter.admitted.done():
                if await link.wait(waiter.admitted):
                    break
        except asyncio.CancelledError:
            if waiter.admitted.done():
                self._give_back(wanted)
            raise
        finally:
            if waiter in self._queue:
                self._queue.remove(waiter)
                self.waiting -= wanted
        call.record.waited_ms = round((time.perf_counter() - begun_s) * 1000, 3)
        call.started_s = time.perf_counter()
        return waiter.admitted.done()

    def leave(self, call: Call) -> None:
        """Gives back the slots of a call that has entered."""
        self._give_back(self._slots_of(call))

    def _give_back(self, sequences: int) -> None:
        self._change_running(-sequences)
        while self._queue and self._fits(self._queue[0].sequences):
            waiter = self._queue.popleft()
            self.waiting -= waiter.sequences
            self._take(waiter.sequences)
            waiter.admitted.set_result(None)

    def _slots_of(self, call: Call) -> int:
        sequences = call.request.sequences
        return min(sequences, self.speeds.slots) if self.speeds.slots else sequences

    def _fits(self, sequences: int) -> bool:
        return not self.speeds.slots or self.running + sequences <= self.speeds.slots

    def _take(self, sequences: int) -> None:
        self._change_running(sequences)

    def _change_running(self, by: int) -> None:
        # Up to now everybody got what the old number left; from now on it is another share.
        self.progress(time.perf_counter())
        self.running += by

    def freeze(self) -> None:
        """From now on nothing is decoded; open calls last as long as their clients do."""
        self.is_frozen = True

    @property
    def rate_per_s(self) -> float:
        """Tokens a second for each sequence that runs."""
        speeds = self.speeds
        if not speeds.total_tokens_per_s:
            return speeds.tokens_per_s
        more = max(0, self.running - 1)
        return 1 / (1 / speeds.tokens_per_s + more / speeds.total_tokens_per_s)

    def progress(self, now_s: float) -> float:
        """Tokens that a sequence would have got that had run for ever. Its differences are what counts."""
        if now_s > self._progress_s:
            self._progress += (now_s - self._progress_s) * self.rate_per_s
            self._progress_s = now_s
        return self._progress

    def pace(self, call: Call) -> Pace:
        """Asked once, when the call has entered: it takes its turn in computing prompts."""
        first_s = call.started_s
        if self.speeds.prefill_tokens_per_s:
            begin_s = max(first_s, self._prefill_free_s)
            computed = max(0, call.prompt_tokens - call.cached_tokens)
            first_s = self._prefill_free_s = begin_s + computed / self.speeds.prefill_tokens_per_s
        first_s += call.directive.ttft_ms / 1000
        if call.directive.rate_per_s is None and self.speeds.total_tokens_per_s:
            return Shared(self, first_s)
        return Steady(first_s, call.rate_per_s) if call.rate_per_s else Unpaced(first_s)
