"""The answer to one request: its head, and its body as it arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from portal.inference.wire.errors import TooLarge, WireError

if TYPE_CHECKING:
    from portal.inference.wire.connection import WireConnection

# What of a body may wait here until somebody asks for it; then the backend is held back.
MAX_UNREAD_BYTES = 2**16


class Receiver(Protocol):
    """Gets a body at the moment at which it arrives. Nothing here may raise."""

    def received(self, data: bytes) -> None: ...

    def ended(self, error: WireError | None) -> None:
        """Called once: after the last byte, or with the reason why no more will come."""
        ...


class Response:
    """Read it with `read` or `next`, or have it pushed with `attach`; `release` it in any case.

    content_type: as the head said it, in lower case. received_at_s: when the last bytes came (monotonic).
    """

    __slots__ = (
        "_connection",
        "_is_over",
        "_is_paused",
        "_max_unread_bytes",
        "_pieces",
        "_receiver",
        "_size",
        "_waiter",
        "content_type",
        "error",
        "received_at_s",
        "status",
    )

    def __init__(self, connection: WireConnection, sent_at_s: float) -> None:
        self.status = 0
        self.content_type = b""
        self.error: WireError | None = None
        self.received_at_s = sent_at_s
        self._connection: WireConnection | None = connection
        self._is_over = False
        self._is_paused = False
        self._max_unread_bytes = MAX_UNREAD_BYTES
        self._pieces: list[bytes] = []
        self._size = 0
        self._receiver: Receiver | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the whole body has arrived, or never will (`error`)."""
        return self._is_over

    # For whoever reads.

    async def read(self, *, max_bytes: int) -> bytes:
        """The whole body. Raises TooLarge, and WireError when it breaks off."""
        self._max_unread_bytes = max_bytes
        while not self._is_over and self._size <= max_bytes:
            self.resume()
            await self._wait()
        if self._size > max_bytes:
            raise TooLarge("the body is larger than wanted")
        if self.error is not None:
            raise self.error
        return self._take()

    async def next(self) -> bytes:
        """What has arrived since the last time, at least a byte; nothing at the end. Raises WireError."""
        while not self._pieces and not self._is_over:
            self.resume()
            await self._wait()
        if not self._pieces and self.error is not None:
            raise self.error
        return self._take()

    def attach(self, receiver: Receiver) -> None:
        """From now on the body goes to the receiver, beginning with what waits here."""
        self._receiver = receiver
        # Before what waits is handed over: the receiver may hold the backend back at once.
        self.resume()
        if self._pieces:
            receiver.received(self._take())
        if self._is_over:
            receiver.ended(self.error)

    def pause(self) -> None:
        """Hold the backend back."""
        if not self._is_paused and self._connection is not None:
            self._is_paused = True
            self._connection.pause()

    def resume(self) -> None:
        if self._is_paused and self._connection is not None:
            self._is_paused = False
            self._connection.resume()

    def release(self, *, linger_s: float = 0.0) -> None:
        """Nobody wants more of it. An answer that is not over is broken off, which tells the backend to
        stop; linger_s: but not before its end had this long to arrive, so that the connection can serve
        again."""
        connection, self._connection = self._connection, None
        self._receiver = None
        self._pieces.clear()
        if connection is not None and not self._is_over:
            if self._is_paused:
                linger_s = 0.0
            connection.abandon(linger_s)

    # For the connection.

    def feed(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.received(data)
            return
        if self._connection is None:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._max_unread_bytes:
            self.pause()
            self._wake()
        elif self._max_unread_bytes == MAX_UNREAD_BYTES:
            self._wake()

    def end(self, error: WireError | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.error = error
        self._connection = None
        if self._receiver is not None:
            self._receiver.ended(error)
        self._wake()

    def _take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
