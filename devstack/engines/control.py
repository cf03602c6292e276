"""The pages below /sim/, which need no API key: the books, and what the engine does from now on.

GET  /sim/requests?since=N&limit=N     records, oldest first (the last 10,000 are kept)
GET  /sim/totals                       sums over all requests
GET  /sim/last_body?seq=N              the body as received, of the last request without seq, or 404
GET  /sim/wait?min=N&max=N&timeout_s=N waits until that many requests are open: 200, or 504 after the time
GET  /sim/faults?since=N               injected faults, oldest first, see `feeds/injected.py`
GET  /sim/feed                         the files that are written, and what was pushed and waits
POST /sim/reset                        empties the books; the engine's own counters go on
POST /sim/behave                       a JSON object: what the engine does from now on, see `BehaveBody`
POST /sim/feed                         a JSON object, see `FeedBody`
POST /sim/bypass                       a JSON object, see `BypassBody`: traffic that bypassed the gateway
POST /sim/restart                      what is open is lost, counters begin anew; ?counters=1: only these do
"""

from __future__ import annotations

import sys
import time
from typing import TypeVar
from urllib.parse import parse_qs

import msgspec

from devstack.engines.books import MAX_RECORDS, Books
from devstack.engines.bypass import bypass
from devstack.engines.dialects.base import Dialect
from devstack.engines.directive import DirectiveError, parse_fault
from devstack.engines.exchange import Exchange
from devstack.engines.feeds.faults import RecordFault
from devstack.engines.feeds.live import Feeds
from devstack.engines.machine import Machine
from devstack.engines.service import Behaviour, Service

MAX_WAIT_S = 120.0
MAX_BYPASSES = 10_000
_WAIT_POLL_S = 0.002
_JSON = [(b"content-type", b"application/json")]

Body = TypeVar("Body")


class BehaveBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is. `fault` is as in a directive, null ends it."""

    fault: str | msgspec.UnsetType | None = msgspec.UNSET
    healthy: bool | None = None
    tokens_per_s: float | None = None
    total_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    slots: int | None = None


class FeedBody(msgspec.Struct, forbid_unknown_fields=True):
    """`fault` befalls the next record of each feed. `flush` sends now what waits to be pushed."""

    fault: RecordFault | None = None
    flush: bool = False


class BypassBody(msgspec.Struct, forbid_unknown_fields=True):
    """So many equal calls."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    count: int = 1


class SimPages:
    """Shows and changes one simulated engine."""

    def __init__(
        self,
        dialect: Dialect,
        books: Books,
        machine: Machine,
        behaviour: Behaviour,
        feeds: Feeds,
        service: Service,
    ) -> None:
        self._dialect = dialect
        self._books = books
        self._machine = machine
        self._behaviour = behaviour
        self._feeds = feeds
        self._service = service

    async def serve(self, method: str, exchange: Exchange, query: bytes) -> None:
        """Answers one request. Raises EngineError."""
        numbers = _numbers(query)
        match method, exchange.path:
            case "GET", "/sim/requests":
                records = self._books.requests(
                    since_seq=int(numbers.get("since", 0)), limit=int(numbers.get("limit", MAX_RECORDS))
                )
                await exchange.respond(200, _JSON, msgspec.json.encode(records))
            case "GET", "/sim/totals":
                await exchange.respond_json(200, self._books.totals())
            case "GET", "/sim/last_body":
                seq = numbers.get("seq")
                body = self._books.body(None if seq is None else int(seq))
                await exchange.respond(404 if body is None else 200, _JSON, body or b"null")
            case "GET", "/sim/wait":
                reached = await self._wait_running(exchange, numbers)
                await exchange.respond_json(200 if reached else 504, {"running": self._books.running})
            case "GET", "/sim/faults":
                injected = self._books.injections.since(int(numbers.get("since", 0)))
                await exchange.respond(200, _JSON, msgspec.json.encode(injected))
            case "GET", "/sim/feed":
                await exchange.respond_json(200, self._feeds.state())
            case "POST", _:
                await self._change(exchange, numbers)
            case _:
                raise self._dialect.not_found()

    async def _change(self, exchange: Exchange, numbers: dict[str, float]) -> None:
        match exchange.path:
            case "/sim/reset":
                self._books.reset()
            case "/sim/behave":
                self._behave(await exchange.read_body())
            case "/sim/feed":
                wanted = self._decode(await exchange.read_body(), FeedBody)
                if wanted.fault is not None:
                    self._feeds.force(wanted.fault)
                if wanted.flush:
                    await self._feeds.flush()
            case "/sim/bypass":
                self._bypass(self._decode(await exchange.read_body(), BypassBody))
            case "/sim/restart":
                if numbers.get("counters"):
                    self._service.reset_counters()
                else:
                    self._service.restart()
            case _:
                raise self._dialect.not_found()
        await exchange.respond_json(200, {})

    def _decode(self, body: bytes, kind: type[Body]) -> Body:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as wrong:
            raise self._dialect.reject(400, f"sim: {wrong}") from wrong

    def _behave(self, body: bytes) -> None:
        wanted = self._decode(body, BehaveBody)
        try:
            if wanted.fault is not msgspec.UNSET:
                self._behaviour.fault = parse_fault(wanted.fault)
        except DirectiveError as wrong:
            raise self._dialect.reject(400, f"sim: {wrong}") from wrong
        if wanted.healthy is not None:
            self._behaviour.is_healthy = wanted.healthy
        speeds = self._machine.speeds
        # What was decoded so far keeps the old speed.
        self._machine.progress(time.perf_counter())
        for name in ("tokens_per_s", "total_tokens_per_s", "prefill_tokens_per_s", "slots"):
            value = getattr(wanted, name)
            if value is not None:
                setattr(speeds, name, value)

    def _bypass(self, wanted: BypassBody) -> None:
        if min(wanted.prompt_tokens, wanted.completion_tokens, wanted.cached_tokens, wanted.count) < 0:
            raise self._dialect.reject(400, "sim: nothing of it is below 0")
        for _ in range(min(wanted.count, MAX_BYPASSES)):
            bypass(
                self._dialect,
                self._feeds,
                self._books.injections,
                prompt_tokens=wanted.prompt_tokens,
                cached_tokens=wanted.cached_tokens,
                completion_tokens=wanted.completion_tokens,
            )

    async def _wait_running(self, exchange: Exchange, numbers: dict[str, float]) -> bool:
        fewest, most = numbers.get("min", 0), numbers.get("max", sys.maxsize)
        deadline_s = time.monotonic() + min(numbers.get("timeout_s", 5.0), MAX_WAIT_S)
        while not fewest <= self._books.running <= most:
            if time.monotonic() >= deadline_s or await exchange.link.pause(_WAIT_POLL_S):
                return False
        return True


def _numbers(query: bytes) -> dict[str, float]:
    """The query's numeric parameters; others are ignored."""
    found: dict[str, float] = {}
    for name, values in parse_qs(query.decode("latin-1"), max_num_fields=10).items():
        try:
            found[name] = max(0.0, float(values[-1]))
        except ValueError:
            continue
    return found
