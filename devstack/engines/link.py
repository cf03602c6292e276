"""The TCP connection under a request: what ASGI does not show, and faults need."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_SETTLE_S = 5.0
_SETTLE_POLL_S = 0.001


class Link:
    """One connection. `requests` counts those begun on it; `lost` becomes true when it is gone."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.requests = 0
        self.lost = False
        self._transport = transport
        self._loop = loop
        self._waiters: set[asyncio.Future[None]] = set()

    def mark_lost(self) -> None:
        """Called once by the protocol; wakes every pause."""
        self.lost = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def pause(self, delay_s: float) -> bool:
        """Sleeps, but not longer than the connection lives. True when the connection is gone."""
        if self.lost:
            return True
        waiter = self._loop.create_future()
        timer = self._loop.call_later(delay_s, _wake, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
        return self.lost

    async def wait(self, future: asyncio.Future[None]) -> bool:
        """Until the future is done, but not longer than the connection lives. True when that is gone."""
        if self.lost:
            return True
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        future.add_done_callback(lambda _: _wake(waiter))
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
        return self.lost

    def write(self, data: bytes) -> None:
        """Writes bytes past the HTTP server, for heads that it would not write."""
        if not self.lost:
            self._transport.write(data)

    async def settle(self) -> None:
        """Waits, up to 5 s, until the peer's kernel has everything that was written."""
        deadline_s = self._loop.time() + MAX_SETTLE_S
        while not self.lost and self._loop.time() < deadline_s:
            if self._transport.get_write_buffer_size() == 0 and self._unacknowledged_bytes() == 0:
                return
            await asyncio.sleep(_SETTLE_POLL_S)

    async def reset(self) -> None:
        """Delivers what was written, then resets the connection (RST instead of FIN)."""
        await self.settle()
        if not self.lost:
            with self._socket() as duplicate:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            await self._wait_lost()

    def abort(self) -> None:
        """Drops the connection at once, as a process that dies does."""
        self._transport.abort()

    async def close(self) -> None:
        """Delivers what was written, then closes the connection."""
        self._transport.close()
        await self._wait_lost()

    async def _wait_lost(self) -> None:
        if not await self.pause(MAX_SETTLE_S):
            # The peer does not read what is still buffered: give it up.
            self._transport.abort()
            await self.pause(MAX_SETTLE_S)

    def _unacknowledged_bytes(self) -> int:
        answer = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        waiting: int = struct.unpack("i", answer)[0]
        return waiting

    def _socket(self) -> socket.socket:
        # Options belong to the connection, not to the descriptor, so a duplicate may set them.
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class LinkedHttpProtocol(HttpToolsProtocol):
    """The HTTP server's protocol, with its connection handed to the application as state["link"]."""

    link: Link

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.link = Link(transport, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.link.mark_lost()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.link.requests += 1
        state: dict[str, Any] = self.scope["state"]
        state["link"] = self.link
