"""One HTTP request and its response, as the simulator's parts see them."""

from __future__ import annotations

import http
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from devstack.engines.dialects.base import Dialect, EngineError, Header, Json
from devstack.engines.link import Link

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024 * 1024
_DRIBBLE_PIECES = 20


class ClientGoneError(Exception):
    """The client left before its request had arrived completely."""


@dataclass(slots=True)
class Exchange:
    """A request with its connection, and a response written in the usual order: start, write, finish.

    `closing` says that the client asked for the connection to be closed after the response.
    """

    path: str
    headers: dict[bytes, bytes]
    raw_headers: list[tuple[bytes, bytes]]
    link: Link
    dialect: Dialect
    receive: Receive
    send: Send
    closing: bool
    past_server: bool = False
    chunked: bool = False

    async def read_body(self) -> bytes:
        """The whole body. Raises ClientGoneError, and EngineError 413 above 64 MiB."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise self.dialect.reject(413, "Request body is too large.")
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def start(
        self, status: int, headers: list[Header], *, length: int | None = None, dribble_ms: int = 0
    ) -> None:
        """Writes the head; chunked when `length` is None, in pieces over `dribble_ms` when that is set."""
        closing = self.closing or status >= 400 or dribble_ms > 0
        head = self.dialect.head(headers=self.headers, requests=self.link.requests, closing=closing)
        head += headers
        if length is not None:
            head.append((b"content-length", str(length).encode()))
        if dribble_ms:
            await self._dribble(status, head, length, dribble_ms)
        else:
            await self.send({"type": "http.response.start", "status": status, "headers": head})

    async def _dribble(self, status: int, head: list[Header], length: int | None, total_ms: int) -> None:
        # The HTTP server writes a head in one go, so this one goes past it, and so must the rest.
        self.past_server = True
        self.chunked = length is None
        lines = [b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode())]
        lines += [name + b": " + value for name, value in head]
        if self.chunked:
            lines.append(b"transfer-encoding: chunked")
        if not any(name.lower() == b"connection" for name, _ in head):
            lines.append(b"connection: close")
        text = b"\r\n".join(lines) + b"\r\n\r\n"
        started_s = time.perf_counter()
        for piece in range(_DRIBBLE_PIECES):
            begin, end = (len(text) * edge // _DRIBBLE_PIECES for edge in (piece, piece + 1))
            self.link.write(text[begin:end])
            due_s = started_s + total_ms / 1000 * (piece + 1) / _DRIBBLE_PIECES
            await self.link.pause(max(0.0, due_s - time.perf_counter()))

    async def write(self, data: bytes) -> None:
        """Writes a part of the body as one chunk; does nothing when the connection is gone."""
        if not self.past_server:
            await self.send({"type": "http.response.body", "body": data, "more_body": True})
        elif self.chunked:
            self.link.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.link.write(data)

    async def finish(self, data: bytes = b"") -> None:
        """Writes the last part and ends the response."""
        if not self.past_server:
            await self.send({"type": "http.response.body", "body": data})
            return
        if data:
            await self.write(data)
        if self.chunked:
            self.link.write(b"0\r\n\r\n")
        await self.link.close()

    async def respond(self, status: int, headers: list[Header], body: bytes, *, dribble_ms: int = 0) -> None:
        """A whole response with a body of known length."""
        await self.start(status, headers, length=len(body), dribble_ms=dribble_ms)
        await self.finish(body)

    async def respond_json(self, status: int, body: Json | list[Any]) -> None:
        """A whole response with a JSON body."""
        await self.respond(status, self.dialect.json_head(), msgspec.json.encode(body))

    async def respond_error(self, error: EngineError) -> None:
        """What the engine answers when it refuses."""
        await self.respond_json(error.status, error.body)
