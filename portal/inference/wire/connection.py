"""One connection to a backend. It serves one exchange at a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httptools

from portal.inference.wire.errors import BrokenOff, StaleConnection, Unreadable, WireError
from portal.inference.wire.response import Response

if TYPE_CHECKING:
    from portal.inference.wire.pool import WirePool

# Of a head, with all that is said before it (1xx).
MAX_HEAD_BYTES = 2**16


class WireConnection(asyncio.Protocol):
    """Made by its pool, which gets it back when an answer is over and the connection may serve again."""

    __slots__ = (
        "_has_framing",
        "_has_head",
        "_head",
        "_head_bytes",
        "_is_interim",
        "_is_message_over",
        "_is_paused",
        "_keeps_alive",
        "_linger",
        "_parser",
        "_pieces",
        "_pool",
        "_response",
        "_served",
        "_transport",
        "idle_since_s",
        "is_closed",
    )

    def __init__(self, pool: WirePool) -> None:
        self.is_closed = False
        self.idle_since_s = 0.0
        self._pool = pool
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._head: asyncio.Future[Response] | None = None
        self._served = 0
        self._linger: asyncio.TimerHandle | None = None
        self._pieces: list[bytes] = []
        self._is_paused = False
        self._begin()

    def _begin(self) -> None:
        self._head_bytes = 0
        self._has_head = self._has_framing = self._is_interim = False
        self._is_message_over = self._keeps_alive = False

    def send(self, head: bytes, body: bytes) -> tuple[Response, asyncio.Future[Response]]:
        """Begin an exchange: its answer, and a future that is done with it when its head is there. That
        raises WireError."""
        self._begin()
        self._response = response = Response(self, time.monotonic())
        self._head = asked = asyncio.get_running_loop().create_future()
        if len(body) < MAX_HEAD_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return response, asked

    def pause(self) -> None:
        if not self.is_closed and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self.is_closed and self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def abandon(self, linger_s: float) -> None:
        """Nobody waits for the rest of the answer."""
        if self._is_message_over:
            return
        if linger_s and not self.is_closed:
            self._linger = asyncio.get_running_loop().call_later(linger_s, self.abort)
        else:
            self.abort()

    def abort(self) -> None:
        self._response = self._head = None
        self._drop()

    def _drop(self) -> None:
        self.is_closed = True
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            # Nobody has asked for anything.
            self.abort()
            return
        response.received_at_s = time.monotonic()
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # Garbage behind an answer spoils the connection and not the answer.
            if not self._is_message_over:
                self._hand_over(response)
                self._fail(Unreadable("the backend does not speak HTTP"))
                return
            self._keeps_alive = False
        if self._pieces:
            self._hand_over(response)
        if self._is_message_over:
            if self._response is response:
                self._finish(response)
        elif not self._has_head and self._head_bytes > MAX_HEAD_BYTES:
            self._fail(Unreadable("the head of the answer does not end"))

    def _hand_over(self, response: Response) -> None:
        pieces = self._pieces
        if pieces:
            self._pieces = []
            response.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def connection_lost(self, exc: Exception | None) -> None:
        response, is_first = self._response, not self._served
        self._drop()
        self._pool.forget(self)
        if response is None:
            return
        if self._has_head and not self._has_framing and exc is None:
            # Such a body ends with the connection.
            self._response = None
            response.end(None)
        elif self._head_bytes or is_first:
            self._fail(BrokenOff("the backend closed the connection"))
        else:
            self._fail(StaleConnection("the backend had closed the connection"))

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self._is_message_over:
            # More than was asked for.
            self._keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_message_over or self._response is None:
            return
        name = name.lower()
        if name == b"content-type":
            self._response.content_type = value.lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._has_framing = True

    def on_headers_complete(self) -> None:
        if self._is_message_over or self._response is None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._is_interim = True
            return
        self._is_interim = False
        self._has_head = True
        self._keeps_alive = self._parser.should_keep_alive()
        self._response.status = status
        if self._head is not None and not self._head.done():
            self._head.set_result(self._response)
        self._head = None

    def on_body(self, body: bytes) -> None:
        if not self._is_message_over:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = self._has_framing = False
            return
        self._is_message_over = True

    # Ends.

    def _finish(self, response: Response) -> None:
        self._response = None
        self._served += 1
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self.resume()
        # First back to the pool: whoever hears of the end may ask for a connection at once. But an answer may
        # come before its request has left, and nobody knows what the backend makes of the rest of that.
        may_serve = self._keeps_alive and not self.is_closed and not self._transport.get_write_buffer_size()
        if may_serve and self._pool.take_back(self):
            response.end(None)
            return
        response.end(None)
        self._drop()

    def _fail(self, error: WireError) -> None:
        response, head = self._response, self._head
        self._response = self._head = None
        self._drop()
        if head is not None and not head.done():
            head.set_exception(error)
        elif response is not None:
            response.end(error)
