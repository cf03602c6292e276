"""The simulator's ASGI application: routes, API key, and the /sim/ pages that show its books.

    GET  /health, /v1/models, /metrics     as the flavour answers them
    POST /v1/chat/completions              `chat.py`
    GET  /sim/requests?since=N&limit=N     records, oldest first (the last 10,000 are kept)
    GET  /sim/totals                       sums over all requests
    GET  /sim/last_body?seq=N              the body as received, of the last request without seq, or 404
    GET  /sim/wait?min=N&max=N&timeout_s=N waits until that many requests are open: 200, or 504 after the time
    POST /sim/reset                        empties the books; the engine's own counters go on

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
from devstack.engines.chat import ChatService
from devstack.engines.dialects import make_dialect
from devstack.engines.dialects.base import EngineError
from devstack.engines.exchange import Exchange, Receive, Send
from devstack.engines.options import EngineOptions

MAX_WAIT_S = 120.0
_WAIT_POLL_S = 0.002
_JSON = [(b"content-type", b"application/json")]


class EngineApp:
    """One simulated engine."""

    def __init__(self, options: EngineOptions) -> None:
        """Raises OSError when the record file can't be opened."""
        self.dialect = make_dialect(options)
        self.books = Books(options.record_path)
        self._chat = ChatService(options, self.dialect, self.books)
        self._expected = None if options.api_key is None else f"Bearer {options.api_key}".encode()

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
        if (method, path) == ("POST", "/v1/chat/completions"):
            await self._chat.serve(exchange, refusal)
        elif refusal is not None:
            raise refusal
        elif (method, path) == ("GET", "/health"):
            await exchange.respond(200, self.dialect.json_head(), self.dialect.health())
        elif (method, path) == ("GET", "/v1/models"):
            await exchange.respond_json(200, self.dialect.models())
        elif (method, path) == ("GET", "/metrics"):
            await self._show_metrics(exchange)
        else:
            raise self.dialect.not_found()

    def _unauthorized(self, exchange: Exchange) -> EngineError | None:
        if self._expected is None or exchange.path in self.dialect.open_paths:
            return None
        given = exchange.headers.get(b"authorization", b"")
        return None if hmac.compare_digest(given, self._expected) else self.dialect.unauthorized()

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
            case _:
                raise self.dialect.not_found()

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
