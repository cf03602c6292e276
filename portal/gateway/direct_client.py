"""The other side of one request on the gateway's own server: what a handler reads from, and writes to."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from portal.gateway.http import Client, ClientGone, Header

if TYPE_CHECKING:
    from portal.gateway.protocol import GatewayProtocol

# What may wait of a body before the handler asks for it.
MAX_UNASKED_BYTES = 64 * 1024
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}


class DirectClient(Client):
    """The other side of one request on such a connection."""

    __slots__ = (
        "_body",
        "_connection",
        "_discards",
        "_has_asked",
        "_is_chunked",
        "_is_modern",
        "_on_writable",
        "_read_waiter",
        "_received_bytes",
        "_unsent_head",
        "_write_waiters",
        "has_body",
        "is_answered",
        "is_held",
        "keeps_alive",
        "task",
    )

    def __init__(
        self,
        connection: GatewayProtocol,
        *,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        is_modern: bool,
        keeps_alive: bool,
    ) -> None:
        super().__init__(method=method, path=path, headers=headers, peer=connection.peer)
        self.keeps_alive = keeps_alive
        self.has_body = False
        self.is_answered = False
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._is_modern = is_modern
        self._is_chunked = False
        self._unsent_head = b""
        self._body: list[bytes] = []
        self._received_bytes = 0
        self._discards = self._has_asked = self.is_held = False
        self._read_waiter: asyncio.Future[None] | None = None
        # The choices of a call wait each for itself.
        self._write_waiters: list[asyncio.Future[None]] = []
        self._on_writable: Any = None

    # From the connection.

    def body_received(self, body: bytes) -> None:
        self._received_bytes += len(body)
        if self._discards:
            self._body.clear()
        else:
            self._body.append(body)
            if not self._has_asked and self._received_bytes > MAX_UNASKED_BYTES and not self.is_held:
                self.is_held = True
                self._connection.transport.pause_reading()
        self._wake_reader()

    def body_ended(self) -> None:
        self.has_body = True
        self._wake_reader()

    def drained(self) -> None:
        for waiter in self._write_waiters:
            if not waiter.done():
                waiter.set_result(None)
        callback, self._on_writable = self._on_writable, None
        if callback is not None:
            callback()

    def lost(self) -> None:
        # Whoever waits for something to leave is stopped and not woken: it never left.
        self._on_writable = None
        self._wake_reader()
        if self.on_gone is not None:
            self.on_gone()

    @property
    def writer(self) -> DirectClient:
        return self

    @property
    def is_gone(self) -> bool:
        return self._connection.is_lost

    def _wake_reader(self) -> None:
        if self._read_waiter is not None and not self._read_waiter.done():
            self._read_waiter.set_result(None)

    # Reading.

    def whole_body(self) -> bytes | None:
        if not self.has_body or self.is_held:
            return None
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    async def body(self, *, max_bytes: int, discard_bytes: int, is_too_large: bool) -> bytes | None:
        self._has_asked = True
        self._discards = is_too_large
        if self.is_held:
            self.is_held = False
            self._connection.transport.resume_reading()
        if not self.has_body and self.header(b"expect") == b"100-continue":
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self.has_body:
            if self._connection.is_lost:
                raise ClientGone
            if self._received_bytes > max_bytes:
                self._discards = True
            if self._received_bytes > discard_bytes:
                break
            self._read_waiter = self._connection.loop.create_future()
            try:
                await self._read_waiter
            finally:
                self._read_waiter = None
        if is_too_large or self._received_bytes > max_bytes:
            return None
        pieces, self._body = self._body, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # Answering.

    async def start(self, *, status: int, content_type: bytes, extra: tuple[Header, ...] = ()) -> None:
        framing = b""
        if self._is_modern:
            self._is_chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            self.keeps_alive = False
        # It leaves with the first piece: one packet instead of two.
        self._unsent_head = self._head(status, content_type, extra, framing)

    def write(self, data: bytes) -> bool:
        """Send a piece of the answer; whether all of it has left this process. If not, `when_writable` tells
        when it has."""
        connection = self._connection
        if connection.is_lost or self.method == "HEAD":
            return not connection.is_lost
        if self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._unsent_head:
            data, self._unsent_head = self._unsent_head + data, b""
        transport = connection.transport
        transport.write(data)
        # One that has failed meanwhile takes nothing, and says so only later.
        return not (connection.is_paused or transport.is_closing())

    def when_writable(self, callback: Any) -> None:
        """Call this once when everything written has left."""
        self._on_writable = callback

    async def send(self, data: bytes) -> None:
        if not self.write(data):
            await self._left()

    async def _left(self) -> None:
        """Returns when everything has left, or at once when the client has. A client that leaves meanwhile
        ends the call, and with it the waiting."""
        connection = self._connection
        while (connection.is_paused or connection.transport.is_closing()) and not connection.is_lost:
            waiter = connection.loop.create_future()
            self._write_waiters.append(waiter)
            try:
                await waiter
            finally:
                self._write_waiters.remove(waiter)

    async def finish(self) -> None:
        if self.is_answered:
            return
        self.is_answered = True
        connection = self._connection
        if not connection.is_lost:
            end = self._unsent_head
            self._unsent_head = b""
            if self._is_chunked and self.method != "HEAD":
                end += b"0\r\n\r\n"
            if end:
                connection.transport.write(end)
            connection.answered(self)

    async def answer(
        self, body: bytes, *, status: int = 200, content_type: bytes, extra: tuple[Header, ...] = ()
    ) -> None:
        self.is_answered = True
        connection = self._connection
        head = self._head(status, content_type, extra, b"content-length: %d\r\n" % len(body))
        if connection.is_lost:
            return
        if self.method == "HEAD":
            body = b""
        if len(body) < MAX_UNASKED_BYTES:
            connection.transport.write(head + body)
        else:
            connection.transport.writelines((head, body))
        connection.answered(self)

    def cut(self) -> None:
        self._connection.transport.abort()

    def _head(self, status: int, content_type: bytes, extra: tuple[Header, ...], framing: bytes) -> bytes:
        self.status = status
        extra = self.extra_headers + extra
        lines = b"".join([b"%b: %b\r\n" % header for header in extra]) if extra else b""
        if b"connection: close" in lines:
            self.keeps_alive = False
        elif (
            not self.keeps_alive
            or self._connection.is_stopping
            or (
                # It waits to be asked for its body, and was not: nobody knows if what comes next is that.
                not self.has_body and b"expect" in self._headers
            )
        ):
            self.keeps_alive = False
            lines += b"connection: close\r\n"
        return b"%b%bcontent-type: %b\r\nx-request-id: %b\r\ncache-control: no-store\r\n%b%b\r\n" % (
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status,
            self._connection.default_head(),
            content_type,
            self.public_id.encode(),
            lines,
            framing,
        )
