"""The ASGI application: /v1 is the API, /_standin/ tells it what to do, everything else is for people."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from devstack.stripe_standin.api import Api, Request
from devstack.stripe_standin.control import Control
from devstack.stripe_standin.faults import Faults
from devstack.stripe_standin.options import Options
from devstack.stripe_standin.pages import serve_page
from devstack.stripe_standin.resources import webhook_endpoints
from devstack.stripe_standin.settings import changed
from devstack.stripe_standin.store import Store
from devstack.stripe_standin.webhooks import Courier
from devstack.stripe_standin.world import World, shown

if TYPE_CHECKING:
    from devstack.stripe_standin.validation import Validator

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 1024 * 1024
_TICK_S = 0.25


class StandinApp:
    """One account, served by one process."""

    def __init__(self, options: Options) -> None:
        store = Store(options.store)
        self.world = World(store, base_url=options.base_url, secret_key=options.secret_key)
        _configure(self.world, options)
        faults = Faults(self.world)
        self._courier = Courier(self.world)
        self._validator: Validator | None = None
        if options.validate:
            self._validator = _make_validator()
            self.world.on_event = self._check_event
        self._api = Api(self.world, faults, self._validator)
        self._control = Control(self.world, faults, self._courier, self._validator)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        request = Request(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body=body.decode(errors="replace"),
        )
        if request.path.startswith("/_standin/"):
            status, answer = await self._control.serve(request)
            await _respond(send, status, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        elif request.path.startswith("/v1/"):
            await self._serve_api(request, scope, send)
        else:
            page = serve_page(self.world, request)
            await _respond(send, page.status, page.headers, page.body)

    async def _serve_api(self, request: Request, scope: Message, send: Send) -> None:
        try:
            answer = await self._api.serve(request)
        except Exception:  # noqa: BLE001 - told to whoever asked
            trace = traceback.format_exc()
            print(trace, flush=True)
            body = {"error": {"type": "api_error", "message": f"The stand-in has a bug: {trace[-1500:]}"}}
            await _respond(send, 500, {"Content-Type": "application/json"}, json.dumps(body).encode())
            return
        if answer.lost:
            await scope["state"]["link"].reset()
            return
        await _respond(
            send, answer.status, {"Content-Type": "application/json", **answer.headers}, answer.encoded()
        )

    def _check_event(self, event: dict[str, Any]) -> None:
        assert self._validator is not None
        for problem in self._validator.check_event(shown(event)):
            self.world.store.db.execute(
                "INSERT INTO violations (request, route, what) VALUES (?, ?, ?)",
                (self.world.request_id or "", f"event {event['type']}", problem),
            )

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        tasks = [asyncio.create_task(self._courier.run()), asyncio.create_task(self._tick())]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await send({"type": "lifespan.shutdown.complete"})

    async def _tick(self) -> None:
        while True:
            try:
                self._control.pass_time()
            except Exception:  # noqa: BLE001 - time goes on
                traceback.print_exc()
            await asyncio.sleep(_TICK_S)


def _make_validator() -> Validator:
    """Brings packages that only tests have: imported here, and only when it is wanted."""
    # Stripe's client would bring three HTTP libraries, too; without them this process starts twice as fast.
    absent = [name for name in ("aiohttp", "httpx", "requests") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        from devstack.stripe_standin.validation import Validator
    finally:
        for name in absent:
            del sys.modules[name]
    return Validator()


def _configure(world: World, options: Options) -> None:
    with world.store.transaction():
        if options.methods is not None:
            world.change_settings(changed(world.settings, {"methods": options.methods}))
        if options.webhook_url is None:
            return
        known = world.store.find("webhook_endpoint", {"_own": True})
        for endpoint in known:
            world.put(endpoint | {"url": options.webhook_url})
        if not known:
            made = webhook_endpoints.make(
                world, url=options.webhook_url, secrets=options.webhook_secrets, events=["*"], metadata={}
            )
            world.put(made | {"_own": True})


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None when the client left, or sends more than anybody needs."""
    parts: list[bytes] = []
    while sum(map(len, parts)) <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
    return None


async def _respond(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
