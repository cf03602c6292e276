"""A backend that does nothing but answer fast, and count: python -m benchmarks.backend --port 9000.

It speaks the OpenAI-compatible part that chats need. A client says in its request what it gets:
`max_tokens` is how many tokens the answer has, one a chunk, and "pace 20/s" in a message how many chunks a
second a stream brings; without it they come at once. Like vLLM and SGLang it puts running usage into every
chunk when `continuous_usage_stats` asks for it.

Every token is the moment at which it was sent (CLOCK_MONOTONIC in nanoseconds, one clock a machine), so
that a client knows to the microsecond how long a chunk was under way.

GET /stats has its own books, one for each way that calls take here: those to /v1 came through the gateway,
those to /nginx/v1 and /direct/v1 did not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import time
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import httptools
import uvloop

# Chunks are due in slots of this length: one timer serves all streams.
SLOT_NS = 2_000_000
SLOTS = 8192
BACKLOG = 4096

_MAX_TOKENS = re.compile(rb'"max_tokens":\s?(\d+)')
_MODEL = re.compile(rb'"model":\s?"([^"]*)"')
_PACE = re.compile(rb"pace (\d+(?:\.\d+)?)/s")
_STREAM = re.compile(rb'"stream":\s?true')
_CONTINUOUS = re.compile(rb'"continuous_usage_stats":\s?true')

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass(slots=True)
class Book:
    """What was served. `cut`: streams whose client left before the end."""

    requests: int = 0
    streams: int = 0
    chunks: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cut: int = 0
    live: int = 0


class Wheel:
    """Sends every stream's next chunk when it is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[list[Stream]] = [[] for _ in range(SLOTS)]
        self._done = 0
        self._waiting = 0

    def add(self, stream: Stream) -> None:
        if not self._waiting:
            self._done = time.monotonic_ns() // SLOT_NS
            self._loop.call_later(SLOT_NS / 1e9, self._turn)
        self._waiting += 1
        # A chunk that is late already goes out with the next slot.
        slot = max(stream.due_ns // SLOT_NS, self._done + 1)
        self._slots[slot % SLOTS].append(stream)

    def _turn(self) -> None:
        now = time.monotonic_ns() // SLOT_NS
        while self._done < now:
            self._done += 1
            place = self._done % SLOTS
            streams, self._slots[place] = self._slots[place], []
            self._waiting -= len(streams)
            for stream in streams:
                stream.send_due()
        if self._waiting:
            self._loop.call_later(SLOT_NS / 1e9, self._turn)


class Stream:
    """One paced answer. It belongs to the wheel until its last chunk is sent or its client leaves."""

    __slots__ = (
        "book",
        "connection",
        "due_ns",
        "has_usage",
        "head",
        "interval_ns",
        "is_over",
        "prompt",
        "sent",
        "tokens",
    )

    def __init__(self, connection: Connection, call: Call) -> None:
        self.connection = connection
        self.book = connection.book
        self.prompt = call.prompt_tokens
        self.tokens = call.tokens
        self.sent = 0
        self.has_usage = call.has_running_usage
        self.head = (
            b'data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":1767225600,"model":"%s",'
            b'"choices":[' % (call.id, call.model)
        )
        self.interval_ns = int(1e9 / call.pace_per_s) if call.pace_per_s else 0
        self.due_ns = time.monotonic_ns()
        self.is_over = False

    def begin(self, wheel: Wheel) -> None:
        opening = _framed(
            b'%s{"index":0,"delta":{"role":"assistant","content":""},'
            b'"logprobs":null,"finish_reason":null}]%s}\n\n' % (self.head, self._usage(0))
        )
        if not self.interval_ns:
            pieces = [self._chunk() for _ in range(self.tokens)]
            self.connection.transport.write(b"".join((_STREAM_HEAD, opening, *pieces, self._ending())))
            self._finish()
            return
        self.connection.transport.write(b"".join((_STREAM_HEAD, opening, self._chunk())))
        self._go_on(wheel)

    def send_due(self) -> None:
        if self.is_over:
            return
        if not self.connection.is_paused:
            self.connection.transport.write(self._chunk())
        self._go_on(self.connection.wheel)

    def _go_on(self, wheel: Wheel) -> None:
        if self.sent == self.tokens:
            self.connection.transport.write(self._ending())
            self._finish()
            return
        self.due_ns += self.interval_ns
        wheel.add(self)

    def leave(self) -> None:
        """The client has gone."""
        if not self.is_over:
            self.is_over = True
            self.book.live -= 1
            self.book.cut += 1

    def _chunk(self) -> bytes:
        self.sent += 1
        self.book.chunks += 1
        self.book.completion_tokens += 1
        data = (
            b'%s{"index":0,"delta":{"content":"@%d"},'
            b'"logprobs":null,"finish_reason":null,"token_ids":null}]%s}\n\n'
            % (self.head, time.monotonic_ns(), self._usage(self.sent))
        )
        return b"%x\r\n%s\r\n" % (len(data), data)

    def _usage(self, sent: int) -> bytes:
        if not self.has_usage:
            return b""
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
            self.prompt,
            self.prompt + sent,
            sent,
        )

    def _ending(self) -> bytes:
        finish = b'%s{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length"}]%s}\n\n' % (
            self.head,
            self._usage(self.sent),
        )
        last = b'%s],"usage":%s}\n\n' % (self.head, usage_object(self.prompt, self.sent))
        return _framed(finish) + _framed(last) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def _finish(self) -> None:
        self.is_over = True
        self.book.live -= 1
        self.connection.stream = None


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def cached_of(prompt_tokens: int) -> int:
    """Of some prompts a part was in the cache."""
    return prompt_tokens % 4


def usage_object(prompt_tokens: int, completion_tokens: int) -> bytes:
    return (
        b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d}}'
        % (prompt_tokens, prompt_tokens + completion_tokens, completion_tokens, cached_of(prompt_tokens))
    )


@dataclass(slots=True)
class Call:
    """What a request asks for."""

    id: bytes
    model: bytes
    tokens: int
    prompt_tokens: int
    pace_per_s: float
    has_running_usage: bool


class Connection(asyncio.Protocol):
    """One client's connection; a stream is answered before the next request is read."""

    numbers = count(1)

    def __init__(self, wheel: Wheel, books: dict[str, Book]) -> None:
        self.wheel = wheel
        self.books = books
        self.book = books["gateway"]
        self.transport: Any = None
        self.stream: Stream | None = None
        self.is_paused = False
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._id = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.stream is not None:
            self.stream.leave()

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._url = b""
        self._id = b""
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._id = value

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/chat/completions"):
            self._chat()
        elif self._url == b"/stats":
            books = {name: asdict(book) for name, book in self.books.items()}
            self._answer(json.dumps(books).encode())
        elif self._url == b"/health" or self._url.endswith(b"/v1/models"):
            self._answer(b'{"object":"list","data":[{"id":"bench","object":"model"}]}')
        else:
            self._answer(b'{"error":{"message":"There is nothing here."}}', status=b"404 Not Found")

    def _chat(self) -> None:
        body, book = self._body, self._book()
        self.book = book
        number = next(self.numbers)
        tokens = _MAX_TOKENS.search(body)
        model = _MODEL.search(body)
        pace = _PACE.search(body)
        call = Call(
            id=self._id or b"%032x" % number,
            model=model[1] if model else b"bench",
            tokens=int(tokens[1]) if tokens else 16,
            prompt_tokens=8 + number % 7,
            pace_per_s=float(pace[1]) if pace else 0.0,
            has_running_usage=_CONTINUOUS.search(body) is not None,
        )
        book.requests += 1
        book.prompt_tokens += call.prompt_tokens
        book.cached_tokens += cached_of(call.prompt_tokens)
        if _STREAM.search(body) is None:
            self._plain(call)
            return
        book.streams += 1
        book.live += 1
        self.stream = Stream(self, call)
        self.stream.begin(self.wheel)

    def _book(self) -> Book:
        way = self._url.split(b"/", 2)[1].decode()
        return self.books.get(way, self.books["gateway"])

    def _plain(self, call: Call) -> None:
        self.book.completion_tokens += call.tokens
        self._answer(
            b'{"id":"chatcmpl-%s","object":"chat.completion","created":1767225600,"model":"%s","choices":'
            b'[{"index":0,"message":{"role":"assistant","content":"@%d%s","refusal":null,"tool_calls":[]},'
            b'"logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":%s}'
            % (
                call.id,
                call.model,
                time.monotonic_ns(),
                b" word" * (call.tokens - 1),
                usage_object(call.prompt_tokens, call.tokens),
            )
        )

    def _answer(self, body: bytes, *, status: bytes = b"200 OK") -> None:
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (status, len(body), body)
        )


async def serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    books = {name: Book() for name in ("gateway", "nginx", "direct")}
    server = await loop.create_server(lambda: Connection(wheel, books), host, port, backlog=BACKLOG)
    # A collection would be a delay that we measure as somebody else's.
    gc.collect()
    gc.disable()
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.backend", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.host, options.port))


if __name__ == "__main__":
    main()
