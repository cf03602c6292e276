"""The simulator's ASGI application: routes, API key, and the /sim/ pages that show its books.

    GET  /health, /v1/models, /metrics     as the flavour answers them, and its pages such as /version, /props
    POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/messages   `service.py`
    GET  /sim/requests?since=N&limit=N     records, oldest first (the last 10,000 are kept)
    GET  /sim/totals                       sums over all requests
    GET  /sim/last_body?seq=N              the body as received, of the last request without seq, or 404
    GET  /sim/wait?min=N&max=N&timeout_s=N waits until that many requests are open: 200, or 504 after the time
    POST /sim/reset                        empties the books; the engine's own counters go on
    POST /sim/behave                       a JSON object: what the engine does from now on, see `BehaveBody`

The pages below /sim/ need no API key.
"""

from __future__ import annotations

import hmac
import sys
import time
from typing import Any
from urllib.parse import parse_qs

import msgspec

from devstack.engines.books import MAX_RECORDS, Books
from devstack.engines.dialects import make_dialect
from devstack.engines.dialects.base import EngineError
from devstack.engines.directive import DirectiveError, parse_fault
from devstack.engines.exchange import Exchange, Receive, Send
from devstack.engines.formats import make_formats
from devstack.engines.machine import Machine
from devstack.engines.options import EngineOptions
from devstack.engines.service import Behaviour, Service

MAX_WAIT_S = 120.0
_WAIT_POLL_S = 0.002
_JSON = [(b"content-type", b"application/json")]


class BehaveBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is. `fault` is as in a directive, null ends it."""

    fault: str | msgspec.UnsetType | None = msgspec.UNSET
    healthy: bool | None = None
    tokens_per_s: float | None = None
    total_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    slots: int | None = None


class EngineApp:
    """One simulated engine."""

    def __init__(self, options: EngineOptions) -> None:
        """Raises OSError when the record file can't be opened."""
        self.dialect = make_dialect(options)
        self.books = Books(options.record_path)
        self.machine = Machine(options.speeds)
        self._behaviour = Behaviour()
        self._hangs = options.shutdown == "hang"
        self._formats = make_formats(self.dialect)
        self._service = Service(self.dialect, self.books, self.machine, self._behaviour)
        self._expected = None if options.api_key is None else f"Bearer {options.api_key}".encode()

    def note_sigterm(self) -> None:
        """The process is told to stop. An engine that hangs then sends nobody another byte."""
        if self._hangs:
            self.machine.freeze()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        headers = dict(raw_headers)
        exchange = Exchange(
            path=scope["path"],
            headers=headers,
            raw_headers=raw_headers,
            link=scope["state"]["link"],
            dialect=self.dialect,
            receive=receive,
            send=send,
            closing=scope["http_version"] == "1.0" or headers.get(b"connection", b"").lower() == b"close",
        )
        try:
            await self._route(scope["method"], exchange, scope["query_string"])
        except EngineError as refusal:
            await exchange.respond_error(refusal)

    async def _route(self, method: str, exchange: Exchange, query: bytes) -> None:
        path = exchange.path
        if path.startswith("/sim/"):
            await self._show_books(method, exchange, _numbers(query))
            return
        refusal = self._unauthorized(exchange)
        form = self._formats.get(path) if method == "POST" else None
        if form is not None:
            await self._service.serve(exchange, form, refusal)
        elif refusal is not None:
            raise refusal
        elif (method, path) == ("GET", "/health"):
            status = 200 if self._behaviour.is_healthy else 503
            await exchange.respond(status, self.dialect.json_head(), self.dialect.health())
        elif (method, path) == ("GET", "/v1/models"):
            await exchange.respond_json(200, self.dialect.models())
        elif (method, path) == ("GET", "/metrics"):
            await self._show_metrics(exchange)
        elif method == "GET" and (page := self.dialect.info(path)) is not None:
            await exchange.respond_json(200, page)
        else:
            raise self.dialect.not_found()

    def _unauthorized(self, exchange: Exchange) -> EngineError | None:
        if self._expected is None or exchange.path in self.dialect.open_paths:
            return None
        given = exchange.headers.get(b"authorization", b"")
        # Anthropic's clients have a header of their own for it.
        other = b"Bearer " + exchange.headers.get(b"x-api-key", b"")
        known = hmac.compare_digest(given, self._expected) or hmac.compare_digest(other, self._expected)
        return None if known else self.dialect.unauthorized()

    async def _show_metrics(self, exchange: Exchange) -> None:
        page = self.dialect.counters.render()
        if page is None:
            raise self.dialect.not_found()
        body, headers = page
        await exchange.respond(200, headers, body)

    async def _show_books(self, method: str, exchange: Exchange, numbers: dict[str, float]) -> None:
        match method, exchange.path:
            case "GET", "/sim/requests":
                records = self.books.requests(
                    since_seq=int(numbers.get("since", 0)), limit=int(numbers.get("limit", MAX_RECORDS))
                )
                await exchange.respond(200, _JSON, msgspec.json.encode(records))
            case "GET", "/sim/totals":
                await exchange.respond_json(200, self.books.totals())
            case "GET", "/sim/last_body":
                seq = numbers.get("seq")
                body = self.books.body(None if seq is None else int(seq))
                await exchange.respond(404 if body is None else 200, _JSON, body or b"null")
            case "GET", "/sim/wait":
                reached = await self._wait_running(exchange, numbers)
                await exchange.respond_json(200 if reached else 504, {"running": self.books.running})
            case "POST", "/sim/reset":
                self.books.reset()
                await exchange.respond_json(200, {})
            case "POST", "/sim/behave":
                self._behave(await exchange.read_body())
                await exchange.respond_json(200, {})
            case _:
                raise self.dialect.not_found()

    def _behave(self, body: bytes) -> None:
        try:
            wanted = msgspec.json.decode(body, type=BehaveBody)
            if wanted.fault is not msgspec.UNSET:
                self._behaviour.fault = parse_fault(wanted.fault)
        except (msgspec.DecodeError, DirectiveError) as wrong:
            raise self.dialect.reject(400, f"sim: {wrong}") from wrong
        if wanted.healthy is not None:
            self._behaviour.is_healthy = wanted.healthy
        speeds = self.machine.speeds
        # What was decoded so far keeps the old speed.
        self.machine.progress(time.perf_counter())
        for name in ("tokens_per_s", "total_tokens_per_s", "prefill_tokens_per_s", "slots"):
            value = getattr(wanted, name)
            if value is not None:
                setattr(speeds, name, value)

    async def _wait_running(self, exchange: Exchange, numbers: dict[str, float]) -> bool:
        fewest, most = numbers.get("min", 0), numbers.get("max", sys.maxsize)
        deadline_s = time.monotonic() + min(numbers.get("timeout_s", 5.0), MAX_WAIT_S)
        while not fewest <= self.books.running <= most:
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
