"""A client that shows exactly which bytes arrived and how the connection ended."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import httptools

from devstack.engines.testing import RunningEngine

READ_TIMEOUT_S = 10.0

# complete: the response ended properly. closed, reset: the connection ended first.
Ending = Literal["complete", "closed", "reset"]


@dataclass
class Answer:
    """What has arrived of one response. `chunks` are the pieces of the body as they were framed."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    raw_bytes: int = 0
    ending: Ending | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    def events(self) -> list[str]:
        """The data of each complete server-sent event."""
        return [event.removeprefix("data: ") for event in self.body.decode().split("\n\n")[:-1]]

    def objects(self) -> list[dict[str, Any]]:
        """The decoded events without [DONE]."""
        return [json.loads(event) for event in self.events() if event != "[DONE]"]

    def words(self, index: int = 0, kind: str = "content") -> list[str]:
        """The words of one choice that the client has received."""
        text = ""
        for chunk in self.objects():
            for choice in chunk.get("choices", []):
                if choice["index"] == index:
                    text += choice["delta"].get(kind) or ""
        return text.split()


class _Parser:
    """Callbacks of the HTTP parser, filling an Answer."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.done = False
        self._http = httptools.HttpResponseParser(self)
        self._chunked = False

    def feed(self, data: bytes) -> None:
        self.answer.raw_bytes += len(data)
        self._http.feed_data(data)
        self.answer.status = self._http.get_status_code() if self.answer.headers else 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answer.headers.append((name.decode().lower(), value.decode()))

    def on_chunk_header(self) -> None:
        self._chunked = True
        self.answer.chunks.append(b"")

    def on_body(self, data: bytes) -> None:
        if self._chunked:
            self.answer.chunks[-1] += data
        else:
            self.answer.chunks.append(data)

    def on_message_complete(self) -> None:
        if self._chunked:
            # The terminating chunk is empty.
            self.answer.chunks.pop()
        self.done = True


class RawClient:
    """One TCP connection to an engine."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._parser = _Parser()

    @classmethod
    async def connect(cls, engine: RunningEngine) -> Self:
        host, _, port = engine.url.removeprefix("http://").rpartition(":")
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        return cls(sock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Leaves with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    async def send(
        self,
        body: dict[str, Any] | bytes,
        *,
        headers: dict[str, str] | None = None,
        keep: bool = False,
        method: str = "POST",
        path: str = "/v1/chat/completions",
    ) -> None:
        """Sends a request; without `keep` it asks for the connection to be closed afterwards."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {
            "Host": "engine.test",
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
        }
        if not keep:
            fields["Connection"] = "close"
        fields.update(headers or {})
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in fields.items()
        )
        await asyncio.get_running_loop().sock_sendall(self._socket, head.encode() + b"\r\n" + content)

    async def read_piece(self, timeout_s: float = READ_TIMEOUT_S) -> bytes:
        """What arrives next; empty at the end. Raises ConnectionResetError, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().sock_recv(self._socket, 65536)

    def push_back(self, data: bytes) -> None:
        """Returns a piece that was looked at, for `read`."""
        self._parser.feed(data)

    async def read(self) -> Answer:
        """The next response, to its end or the connection's."""
        parser, self._parser = self._parser, _Parser()
        while not parser.done:
            try:
                data = await self.read_piece()
            except ConnectionResetError:
                parser.answer.ending = "reset"
                return parser.answer
            if not data:
                parser.answer.ending = "closed"
                return parser.answer
            parser.feed(data)
        parser.answer.ending = "complete"
        return parser.answer

    async def read_events(self, count: int) -> Answer:
        """The response so far, once at least `count` events have arrived."""
        while len(self._parser.answer.events()) < count:
            data = await self.read_piece()
            assert data, "the stream ended early"
            self._parser.feed(data)
        return self._parser.answer


async def ask(
    engine: RunningEngine,
    body: dict[str, Any] | bytes,
    *,
    headers: dict[str, str] | None = None,
    path: str = "/v1/chat/completions",
) -> Answer:
    """One request on a connection of its own."""
    async with await RawClient.connect(engine) as client:
        await client.send(body, headers=headers, path=path)
        return await client.read()


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """A request body with one user message."""
    return {"model": "sim-model", "messages": [{"role": "user", "content": text}], **fields}


def streamed(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a streamed request that asks for usage."""
    return chat(text, stream=True, stream_options={"include_usage": True}, **fields)
