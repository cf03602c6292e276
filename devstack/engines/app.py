"""The simulator's ASGI application: routes, API key, and the /sim/ pages that show its books.

GET  /health, /v1/models, /metrics     as the flavour answers them, and its pages such as /version, /props
POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/messages   `service.py`
/sim/…                                 the books and what the engine does from now on, see `control.py`
"""

from __future__ import annotations

import hmac
from typing import Any

from devstack.engines.books import Books
from devstack.engines.control import SimPages
from devstack.engines.dialects import make_dialect
from devstack.engines.dialects.base import EngineError
from devstack.engines.exchange import Exchange, Receive, Send
from devstack.engines.feeds.live import Feeds
from devstack.engines.formats import make_formats
from devstack.engines.machine import Machine
from devstack.engines.options import EngineOptions
from devstack.engines.service import Behaviour, Service


class EngineApp:
    """One simulated engine."""

    def __init__(self, options: EngineOptions) -> None:
        """Raises OSError when a file cannot be opened, FeedError for a feed that the flavour has not."""
        self.dialect = make_dialect(options)
        self.books = Books(options.record_path, options.books_path)
        self.feeds = Feeds(options.feed, self.dialect, self.books.injections)
        self.machine = Machine(options.speeds)
        self._behaviour = Behaviour()
        self._hangs = options.shutdown == "hang"
        self._formats = make_formats(self.dialect)
        self._service = Service(
            self.dialect, self.books, self.machine, self._behaviour, self.feeds, options.feed.faults
        )
        self._pages = SimPages(
            self.dialect, self.books, self.machine, self._behaviour, self.feeds, self._service
        )
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
            await self._pages.serve(method, exchange, query)
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
