"""From a backend's socket to a client's without waking a task: a chunk is read, looked at and written in the
turn of the event loop in which it arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from portal.inference.stream_events import EventRun
from portal.inference.wire import Response, WireError
from portal.kit.sse import EventSplitter, EventTooLarge


class Writer(Protocol):
    """A client that can be written to at once."""

    def write(self, data: bytes) -> bool:
        """Whether all of it has left this process; if not, no more should come before it has."""
        ...

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call this once when everything written has left; never, when the client is gone."""
        ...


class Conduit:
    """Passes on the rest of one stream. Await `passed` once; whatever comes of it, release the response.

    read: sorts a run of events. note: is told of each run that has left for the client, and of no other.
    may_deliver: asked before anything is delivered; when it says no, the call is being cancelled, and nothing
    more is passed on.
    """

    def __init__(
        self,
        response: Response,
        writer: Writer,
        *,
        splitter: EventSplitter,
        read: Callable[[Sequence[bytes]], EventRun],
        note: Callable[[EventRun], None],
        may_deliver: Callable[[], bool],
    ) -> None:
        self._response = response
        self._write = writer.write
        self._when_writable = writer.when_writable
        self._split = splitter.feed
        self._read = read
        self._note = note
        self._may_deliver = may_deliver
        # Runs that wait in this process because the client is slow.
        self._unsent: list[EventRun] = []
        self._left_at_s = 0.0
        self._last: EventRun | WireError | None = None
        self._is_over = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def waits_for_client(self) -> bool:
        return bool(self._unsent)

    @property
    def progress_s(self) -> float:
        """When something moved last (monotonic)."""
        return max(self._response.received_at_s, self._left_at_s)

    async def passed(self) -> EventRun:
        """The last run of the stream, once it has left. Raises WireError when the backend broke off, and
        EventTooLarge."""
        self._response.attach(self)
        await self._over
        if isinstance(self._last, EventRun):
            return self._last
        if self._last is not None:
            raise self._last
        return EventRun()

    # From the backend's connection.

    def received(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            events = self._split(data)
        except EventTooLarge as error:
            if error.events:
                self._pass(error.events)
            self._end(None)
            return
        if events:
            self._pass(events)

    def ended(self, error: WireError | None) -> None:
        self._end(error)

    # From the client's.

    def _left(self) -> None:
        """Everything written has left."""
        self._left_at_s = time.monotonic()
        for run in self._unsent:
            self._note(run)
        self._unsent.clear()
        if self._is_over:
            self._wake()
        else:
            self._response.resume()

    # The inside.

    def _pass(self, events: Sequence[bytes]) -> None:
        if not self._may_deliver():
            self._is_over = True
            return
        run = self._read(events)
        outgoing = run.outgoing
        if outgoing:
            has_left = self._write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))
        else:
            # What is not for the client, such as counts, may be about what is still waiting.
            has_left = not self._unsent
        if has_left:
            self._note(run)
        else:
            self._unsent.append(run)
            self._response.pause()
            self._when_writable(self._left)
        if run.is_done or run.has_failed:
            self._end(run)

    def _end(self, last: EventRun | WireError | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._last = last
        if not self._unsent:
            self._wake()

    def _wake(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
