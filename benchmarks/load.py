"""The client side of a benchmark: python -m benchmarks.load < ORDER.json.

An order is a JSON object. `plain` keeps a number of connections busy until so many requests are answered;
`streams` opens streams at a limited rate, says when all of them have begun ({"event": "steady"}), and ends
when they have. The last line of the output is the result ({"event": "done", ...}). Times are in nanoseconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import resource
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import httptools
import msgspec
import uvloop

from benchmarks.orders import Order, Outcome, PlainOrder, Spread, StreamsOrder, Target

_SENT_AT = re.compile(rb'"content":\s?"@(\d+)')
_COMPLETION = re.compile(rb'"completion_tokens":\s?(\d+)')
# Long enough for the last events of a stream.
_TAIL_BYTES = 2048
StreamKind = Literal["stream", "probe", "direct", "beside"]
_PAST_THE_TARGET = ("direct", "beside")

CONNECT_TIMEOUT_S = 30.0
STUCK_TIMEOUT_S = 120.0
KEPT_ERRORS = 5


def request_bytes(target: Target, key: str, *, tokens: int, stream: bool, pace_per_s: float) -> bytes:
    """A whole request, head and body."""
    pace = f", at pace {pace_per_s:g}/s" if pace_per_s else ""
    body: dict[str, Any] = {
        "model": target.model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer briefly and to the point."},
            {"role": "user", "content": f"Write a few words about the history of the telegraph{pace}."},
        ],
        "max_tokens": tokens,
        "temperature": 0.7,
    }
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True, **target.stream_options}
    content = json.dumps(body).encode()
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        f"User-Agent: sluice-benchmark\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@dataclass(slots=True)
class Tally:
    """What the clients of one run have seen."""

    ok: int = 0
    failed: int = 0
    cut: int = 0
    chunks: int = 0
    completion_tokens: int = 0
    errors: list[str] = field(default_factory=list)
    latency_ns: array[int] = field(default_factory=lambda: array("q"))

    def fail(self, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < KEPT_ERRORS:
            self.errors.append(reason[:300])

    def cut_off(self, reason: str) -> None:
        self.cut += 1
        if len(self.errors) < KEPT_ERRORS:
            self.errors.append(reason[:300])


class Client(asyncio.Protocol):
    """An HTTP client as far as a benchmark needs one; subclasses say what an answer means."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)


class PlainClient(Client):
    """One connection of a closed loop: the next request goes out when the answer to the last is there."""

    def __init__(self, loop: PlainLoop) -> None:
        super().__init__()
        self._loop = loop
        self._sent_ns = 0
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send_next()

    def _send_next(self) -> None:
        request = self._loop.next_request()
        if request is None:
            self._sent_ns = 0
            self.transport.close()
            return
        self._body = b""
        self._sent_ns = time.monotonic_ns()
        self.transport.write(request)

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        tally = self._loop.tally
        tally.latency_ns.append(time.monotonic_ns() - self._sent_ns)
        status = self._parser.get_status_code()
        tokens = _COMPLETION.search(self._body)
        if status == 200 and tokens:
            tally.ok += 1
            tally.completion_tokens += int(tokens[1])
        else:
            tally.fail(f"{status}: {self._body.decode(errors='replace')}")
        self._loop.answered += 1
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent_ns:
            self._loop.tally.fail(f"the connection was closed: {exc}")
            self._loop.answered += 1
        self._loop.left(self)


class PlainLoop:
    """So many connections, which share so many requests."""

    def __init__(self, order: PlainOrder) -> None:
        self._order = order
        self.tally = Tally()
        self.answered = 0
        self._sent = 0
        self._open = 0
        self._over = asyncio.Event()
        # Answers differ in length, so that sums which happen to agree do not pass for right ones.
        self._requests = [
            request_bytes(order.target, key, tokens=order.tokens + more, stream=False, pace_per_s=0)
            for more in range(7)
            for key in order.keys
        ]

    def next_request(self) -> bytes | None:
        if self._sent >= self._order.requests:
            return None
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        return request

    def left(self, client: PlainClient) -> None:
        self._open -= 1
        if not self._open:
            self._over.set()

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        target = self._order.target
        started_ns = time.monotonic_ns()
        while self._sent < self._order.requests:
            # Again, when connections were closed before all requests were sent.
            self._over.clear()
            for _ in range(min(self._order.connections, self._order.requests - self._sent)):
                self._open += 1
                await loop.create_connection(lambda: PlainClient(self), target.host, target.port)
            await asyncio.wait_for(self._over.wait(), self._order.timeout_s)
        duration_ns = time.monotonic_ns() - started_ns
        return outcome(self.tally, duration_ns=duration_ns, latency=spread(self.tally.latency_ns))


class StreamClient(Client):
    """One stream on a connection of its own."""

    def __init__(self, run: StreamsRun, request: bytes, tokens: int, kind: StreamKind) -> None:
        super().__init__()
        self._run = run
        self._request = request
        self._wanted = tokens
        self._kind: StreamKind = kind
        self._tally = run.direct_tally if kind in _PAST_THE_TARGET else run.tally
        self._sent_ns = 0
        self._chunks = 0
        self._rest = b""
        self._tail = b""
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._sent_ns = time.monotonic_ns()
        transport.write(self._request)  # type: ignore[attr-defined]

    def on_body(self, body: bytes) -> None:
        now_ns = time.monotonic_ns()
        # An event may arrive in pieces; what is behind the last line break waits for the rest of it.
        whole, line_break, rest = (self._rest + body if self._rest else body).rpartition(b"\n")
        self._rest = rest
        if not line_break:
            return
        # The last counts may have come before the end of the stream did.
        self._tail = (self._tail + whole)[-_TAIL_BYTES:]
        for sent_at in _SENT_AT.findall(whole):
            self._chunk(int(sent_at), now_ns)

    def _chunk(self, sent_at_ns: int, now_ns: int) -> None:
        self._chunks += 1
        if self._chunks == 1:
            self._run.began(self._kind, ttft_ns=now_ns - self._sent_ns)
        elif self._run.is_steady:
            self._run.delay_ns[self._kind].append(now_ns - sent_at_ns)

    def on_message_complete(self) -> None:
        tally = self._tally
        status = self._parser.get_status_code()
        tokens = _COMPLETION.findall(self._tail)
        if status != 200:
            tally.fail(f"{status}: {(self._tail + self._rest).decode(errors='replace')}")
        elif self._chunks != self._wanted or not tokens or int(tokens[-1]) != self._wanted:
            tally.cut_off(
                f"{self._chunks} of {self._wanted} chunks: {self._tail[-200:].decode(errors='replace')}"
            )
        else:
            tally.ok += 1
            tally.completion_tokens += int(tokens[-1])
        tally.chunks += self._chunks
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over:
            self._tally.chunks += self._chunks
            self._tally.cut_off(f"the connection was closed after {self._chunks} chunks: {exc}")
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self.transport.close()
        self._run.ended(self._kind)


class StreamsRun:
    """Streams that are open at the same time, and probes: short ones that come while all of them run."""

    def __init__(self, order: StreamsOrder) -> None:
        self._order = order
        self.tally = Tally()
        self.direct_tally = Tally()
        self.is_steady = False
        self.delay_ns: dict[StreamKind, array[int]] = {kind: array("q") for kind in get_args(StreamKind)}
        self._ttft_ns: dict[StreamKind, array[int]] = {kind: array("q") for kind in get_args(StreamKind)}
        self._live = 0
        self._all_began = asyncio.Event()
        self._one_ended = asyncio.Event()
        self._all_ended = asyncio.Event()

    def began(self, kind: StreamKind, *, ttft_ns: int) -> None:
        self._ttft_ns[kind].append(ttft_ns)
        if len(self._ttft_ns["stream"]) == self._order.streams:
            self._all_began.set()

    def ended(self, kind: StreamKind) -> None:
        self._live -= 1
        if kind == "stream":
            self.is_steady = False
            self._one_ended.set()
            # A stream that never began must not keep the others waiting.
            self._all_began.set()
        if not self._live:
            self._all_ended.set()

    async def run(self) -> Outcome:
        order = self._order
        started_ns = time.monotonic_ns()
        for number in range(order.beside):
            await self._open("beside", number)
        pause_s = 1.0 / order.connect_per_s
        begin_s = time.monotonic()
        for number in range(order.streams):
            await self._open("stream", number)
            ahead_s = begin_s + (number + 1) * pause_s - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
        await asyncio.wait_for(self._all_began.wait(), STUCK_TIMEOUT_S)
        self.is_steady = not self._one_ended.is_set()
        print(json.dumps({"event": "steady", "live": self._live}), flush=True)
        await self._probe()
        await asyncio.wait_for(self._all_ended.wait(), order.timeout_s)
        return outcome(
            self.tally,
            duration_ns=time.monotonic_ns() - started_ns,
            delay=spread(self.delay_ns["stream"]),
            beside_delay=spread(self.delay_ns["beside"]),
            ramp_ttft=spread(self._ttft_ns["stream"]),
            probe_ttft=spread(self._ttft_ns["probe"]),
            direct_ttft=spread(self._ttft_ns["direct"]),
        )

    async def _probe(self) -> None:
        """Open short streams, through the target and past it, until the first of the long ones ends."""
        if not self._order.probes_per_s:
            return
        number = 0
        while not self._one_ended.is_set():
            await self._open("probe", number)
            if self._order.direct is not None:
                await self._open("direct", number)
            number += 1
            await asyncio.sleep(1.0 / self._order.probes_per_s)

    async def _open(self, kind: StreamKind, number: int) -> None:
        order = self._order
        is_past = kind in _PAST_THE_TARGET
        target = order.direct if is_past and order.direct is not None else order.target
        is_long = kind in ("stream", "beside")
        tokens = order.tokens if is_long else order.probe_tokens
        request = request_bytes(
            target,
            order.keys[number % len(order.keys)],
            tokens=tokens,
            stream=True,
            pace_per_s=order.pace_per_s if is_long else order.probe_pace_per_s,
        )
        self._live += 1
        self._all_ended.clear()
        connecting = asyncio.get_running_loop().create_connection(
            lambda: StreamClient(self, request, tokens, kind), target.host, target.port
        )
        try:
            await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            (self.direct_tally if is_past else self.tally).fail(f"no connection: {error}")
            self.ended(kind)


def spread(values: array[int]) -> Spread:
    ordered: Sequence[int] = sorted(values)
    if not ordered:
        return Spread()
    last = len(ordered) - 1
    return Spread(
        count=len(ordered),
        p50=ordered[round(last * 0.50)],
        p95=ordered[round(last * 0.95)],
        p99=ordered[round(last * 0.99)],
        max=ordered[-1],
    )


def outcome(tally: Tally, *, duration_ns: int, **spreads: Spread) -> Outcome:
    return Outcome(
        ok=tally.ok,
        failed=tally.failed,
        cut=tally.cut,
        chunks=tally.chunks,
        completion_tokens=tally.completion_tokens,
        errors=tally.errors,
        duration_ns=duration_ns,
        **spreads,
    )


async def carry_out(order: PlainOrder | StreamsOrder) -> Outcome:
    # A collection would be a delay that we measure as somebody else's.
    gc.collect()
    gc.disable()
    return await (PlainLoop(order).run() if isinstance(order, PlainOrder) else StreamsRun(order).run())


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    result = uvloop.run(carry_out(order))
    print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
