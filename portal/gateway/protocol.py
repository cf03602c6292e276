"""The gateway's side of a client's connection: HTTP/1.1 from the socket to a handler, one task a request.

The server's own protocol puts an event, a dictionary and two messages between a handler and the socket; for
a stream of tokens that costs more than everything else. Here a handler writes to the socket itself.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools

from portal.gateway.direct_client import DirectClient
from portal.inference.errors import CallError

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from portal.gateway.asgi import Gateway

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 20.0
KEEP_ALIVE_S = 30.0
UNSENT_TIMEOUT_S = 15.0
_NEVER_S = float("inf")


class PipelinedRequest(Exception):
    """The client did not wait for its answer."""


class GatewayProtocol(asyncio.Protocol):
    """One connection; made by uvicorn's server, which only listens, and stops listening.

    Writes leave at once or wait until the kernel has room: what the gateway has sent can not be lost in a
    buffer of this process when it is killed, so a durable checkpoint never claims more than the client got.
    """

    __slots__ = (
        "_client",
        "_connections",
        "_defaults",
        "_gateway",
        "_has_head",
        "_head_bytes",
        "_headers",
        "_parser",
        "_raw_bytes",
        "_state",
        "_timer",
        "_unsent_timer",
        "_until_s",
        "_url",
        "is_lost",
        "is_paused",
        "is_stopping",
        "loop",
        "peer",
        "transport",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        gateway: Any = config.app
        self.transport: Any = None
        self.peer = ""
        self.is_paused = False
        self.is_lost = False
        self._gateway: Gateway = gateway
        self.loop = _loop or asyncio.get_running_loop()
        self._state = server_state
        self._connections: set[Any] = server_state.connections
        self._parser: Any = httptools.HttpRequestParser(self)
        self._client: DirectClient | None = None
        self.is_stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def _expect_head(self) -> None:
        self._until_s = self.loop.time() + HEAD_TIMEOUT_S
        self._has_head = False
        # Received since then, or since the last byte of a body: heads, trailers and chunks' own lines.
        self._head_bytes = 0
        self._raw_bytes = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._connections.add(self)
        self._timer = self.loop.call_at(self._until_s, self._look_at_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._connections.discard(self)
        for timer in (self._timer, self._unsent_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._unsent_timer = None
        client, self._client = self._client, None
        if client is not None:
            client.lost()
        # It refers to this object, and this object to it.
        self._parser = None

    def data_received(self, data: bytes) -> None:
        if self._raw_bytes:
            self._take_raw(data)
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Nothing is upgraded here, but for this parser what follows is not HTTP any more.
            self.is_stopping = True
            self._take_raw(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_garbage()
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def _take_raw(self, data: bytes) -> None:
        """The body of a request whose client would rather speak something else."""
        client, piece = self._client, data[: self._raw_bytes]
        self._raw_bytes -= len(piece)
        if client is not None and piece:
            client.body_received(piece)
            if not self._raw_bytes:
                client.body_ended()

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._client is not None:
            self._client.drained()

    # The server's wish.

    def shutdown(self) -> None:
        """Take no further request. A running one ends as it ends."""
        self.is_stopping = True
        if self._client is None:
            self.transport.close()

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self._client is not None:
            # A request behind a running one: reading on, nobody would notice that the client leaves. The
            # parser must not go on either, or it would be taken for a part of that one.
            raise PipelinedRequest
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a body is none that a request may be judged by.
        if not self._has_head:
            self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        self._has_head = True
        self._until_s = _NEVER_S
        parser = self._parser
        if parser.should_upgrade():
            length = self._headers.get(b"content-length", b"")
            self._raw_bytes = int(length) if length.isdigit() and len(length) < 20 else 0
        method: bytes = parser.get_method()
        self._client = client = DirectClient(
            self,
            method=method.decode("ascii"),
            path=_path(self._url),
            headers=self._headers,
            is_modern=parser.get_http_version() == "1.1",
            keeps_alive=parser.should_keep_alive(),
        )
        client.task = self.loop.create_task(self._serve(client))

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._client is not None:
            self._client.body_received(body)

    def on_message_complete(self) -> None:
        client = self._client
        if self._raw_bytes:
            return
        if client is None:
            # The rest of a body that nobody wanted.
            self._wait_for_next()
        else:
            client.body_ended()

    # One request after another.

    async def _serve(self, client: DirectClient) -> None:
        try:
            await self._gateway.serve(client)
        except Exception:
            logger.exception("gateway.handler.failed")
        finally:
            if not client.is_answered and not self.is_lost:
                self.transport.abort()
            client.task = None

    def answered(self, client: DirectClient) -> None:
        """The answer has been written, at least into the transport."""
        if self._client is not client:
            return
        self._client = None
        if client.is_held:
            # Nobody asks for the rest of its body any more: it is read away.
            self.transport.resume_reading()
        if client.keeps_alive and not self.is_stopping:
            if client.has_body:
                self._wait_for_next()
            else:
                self._until_s = self.loop.time() + HEAD_TIMEOUT_S
        else:
            self.transport.close()
        if self.is_paused and self._unsent_timer is None:
            # An answer that nobody fetches must not stay in memory: closing alone would wait for the client.
            self._watch_unsent(sys.maxsize)

    def _wait_for_next(self) -> None:
        if self.is_stopping:
            self.transport.close()
            return
        self._has_head = False
        self._head_bytes = 0
        self._until_s = self.loop.time() + KEEP_ALIVE_S

    def _refuse_garbage(self) -> None:
        if self._client is not None or self._has_head:
            self.transport.abort()
            return
        self._client = client = DirectClient(
            self, method="GET", path="", headers={}, is_modern=True, keeps_alive=False
        )
        client.task = self.loop.create_task(self._fail(client))

    async def _fail(self, client: DirectClient) -> None:
        await client.fail(CallError(400, "invalid_http", "This is not a valid HTTP request."))

    # Clocks.

    def _look_at_clock(self) -> None:
        """One timer a connection, which looks now and then what is due: setting one a request costs more."""
        left_s = self._until_s - self.loop.time()
        if left_s > 0:
            self._timer = self.loop.call_later(min(left_s, HEAD_TIMEOUT_S), self._look_at_clock)
            return
        self._timer = None
        if self._has_head or self._head_bytes:
            self.transport.abort()
        else:
            self.transport.close()

    def _watch_unsent(self, before_bytes: int) -> None:
        self._unsent_timer = None
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes >= before_bytes:
            self.transport.abort()
        elif unsent_bytes:
            self._unsent_timer = self.loop.call_later(UNSENT_TIMEOUT_S, self._watch_unsent, unsent_bytes)

    def default_head(self) -> bytes:
        """The lines that every answer has. The server makes new ones every second."""
        headers = self._state.default_headers
        if _Defaults.headers is not headers:
            _Defaults.headers = headers
            _Defaults.lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return _Defaults.lines


class _Defaults:
    headers: Any = None
    lines = b""


_paths: dict[bytes, str] = {}


def _path(url: bytes) -> str:
    """The path of a request's address, decoded; empty for an address that is none."""
    known = _paths.get(url)
    if known is not None:
        return known
    try:
        path = (httptools.parse_url(url).path or b"").decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        return ""
    if "%" in path:
        path = unquote(path)
    if len(_paths) < 256 and len(url) < 128:
        _paths[url] = path
    return path
