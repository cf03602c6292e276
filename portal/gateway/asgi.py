"""The data plane's ASGI application: raw, without middleware and without an ORM on the hot path."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from models_catalog.engines import PATHS, Endpoint
from portal.gateway import balance, model_answers, receipts
from portal.gateway.http import AsgiClient, Client, RequestTooLarge, SlowBody, read_body
from portal.inference import errors, measures
from portal.inference.call import ModelCall
from portal.inference.costs import read_cost_options
from portal.inference.credentials import Credential
from portal.inference.database import in_time
from portal.inference.dialects import DIALECTS, MESSAGES, Dialect, decode_body, read_model
from portal.inference.errors import CallError
from portal.inference.runtime import Runtime
from portal.inference.snapshot import ModelEntry
from portal.kit import logs, metrics
from portal.kit.clock import utc_now

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


_MESSAGES_PATH = PATHS[Endpoint.MESSAGES]


def _is_anthropics(path: str) -> bool:
    """Whether the address is one of those that only Anthropic's clients ask."""
    return path.startswith(_MESSAGES_PATH) and path[len(_MESSAGES_PATH) :][:1] in ("", "/")


class Gateway:
    """One instance a process. Health and metrics are answered even while it drains."""

    def __init__(
        self, runtime: Runtime, *, max_body_bytes: int, body_timeout_s: int, metrics_token: str | None
    ) -> None:
        self.runtime = runtime
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._metrics_token = metrics_token
        self._routes: dict[tuple[str, str], Callable[[Client], Awaitable[None]]] = {
            **{("POST", path): partial(self._call, dialect) for path, dialect in DIALECTS.items()},
            ("GET", "/v1/models"): self._models,
            ("GET", "/v1/balance"): self._balance,
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/metrics"): self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        await self.serve(AsgiClient(scope, receive, send))

    async def serve(self, client: Client) -> None:
        """Answer one request, whichever server brings it."""
        logs.bind(request_id=client.public_id)
        try:
            await self._answer(client)
        finally:
            measures.answers(client.status).inc()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.runtime.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.runtime.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, client: Client) -> None:
        if _is_anthropics(client.path):
            # Where Anthropic's clients look for it.
            client.add_headers(((b"request-id", client.public_id.encode()),))
        try:
            handler = self._routes.get((client.method, client.path))
            if handler is not None:
                await handler(client)
            elif client.path.startswith("/v1/models/") and client.method == "GET":
                await self._model(client)
            elif client.path.startswith(receipts.PATH) and client.method == "GET":
                await receipts.answer_receipt(self.runtime, client, await self._authenticate(client))
            else:
                raise self._nothing_there(client)
        except CallError as error:
            await self._fail(client, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("gateway.request.failed")
            await self._fail(
                client,
                CallError(500, "internal_error", "Something went wrong on our side.", type="server_error"),
            )

    def _nothing_there(self, client: Client) -> CallError:
        """At this address, or by this method."""
        allowed = [method for method, path in self._routes if path == client.path]
        if client.path.startswith(("/v1/models/", receipts.PATH)):
            allowed = ["GET"]
        if not allowed:
            return CallError(404, "not_found", "There is nothing at this address.")
        client.add_headers(((b"allow", ", ".join(allowed).encode()),))
        return CallError(405, "method_not_allowed", f"{client.method} is not offered at this address.")

    async def _fail(self, client: Client, error: CallError) -> None:
        """In the form of whoever is asked."""
        dialect = MESSAGES if _is_anthropics(client.path) else DIALECTS.get(client.path)
        await client.fail(error, dialect.error_body(error, client.public_id) if dialect else None)

    # /v1

    async def _call(self, dialect: Dialect, client: Client) -> None:
        runtime = self.runtime
        if runtime.is_draining:
            raise errors.overloaded("The service is restarting. Try again.")
        credential = await self._authenticate(client)
        raw = await self._body(client)
        body = decode_body(raw)
        entry = await self._find(client, read_model(body), dialect.endpoint)
        engines = {route.engine.name: route.engine for route in entry.routes}.values()
        request = dialect.read_request(body, raw=raw, entry=entry, engines=engines)
        costs = read_cost_options(client.header, endpoint=dialect.endpoint, stream=request.stream)
        call = ModelCall(
            runtime,
            request_id=client.request_id,
            credential=credential,
            entry=entry,
            request=request,
            sink=client,
            costs=costs,
        )
        await client.run_until_gone(call)

    async def _authenticate(self, client: Client) -> Credential:
        """Raises CallError 401, and 503 without a database."""
        authorization = client.header(b"authorization")
        if authorization is None and (key := client.header(b"x-api-key")) is not None:
            # As Anthropic's clients send it.
            authorization = b"Bearer " + key
        return await self.runtime.authenticator.authenticate(authorization)

    async def _find(self, client: Client, name: str, endpoint: Endpoint) -> ModelEntry:
        """The model that a call names, with the routes that serve it at this endpoint. Its end is told on
        whatever is answered. Raises CallError."""
        entry = await self.runtime.catalog.find(name)
        if entry is None:
            raise errors.unknown_model(name)
        if entry.deprecated_at is not None:
            now = utc_now()
            client.add_headers(model_answers.end_headers(entry, now))
            if entry.is_retired(now):
                raise errors.retired_model(entry.slug, entry.successor)
        if not entry.routes:
            raise errors.backend_unavailable()
        offered = entry.at(endpoint)
        if offered is None:
            paths = [PATHS[endpoint] for endpoint in entry.offered()]
            raise errors.endpoint_not_offered(entry.slug, PATHS[endpoint], paths)
        return offered

    async def _body(self, client: Client) -> bytes:
        try:
            return await read_body(client, max_bytes=self._max_body_bytes, timeout_s=self._body_timeout_s)
        except RequestTooLarge:
            raise CallError(
                413, "request_too_large", f"A request body has at most {self._max_body_bytes} bytes."
            ) from None
        except SlowBody:
            raise CallError(
                408, "request_timeout", f"The body did not arrive within {self._body_timeout_s} seconds."
            ) from None

    async def _models(self, client: Client) -> None:
        credential = await self._authenticate(client)
        models = await self.runtime.authenticator.current_models(credential)
        now, known = utc_now(), self.runtime.catalog.known
        shown = [model_answers.model_object(*model, known(model[0]), now) for model in models]
        await client.answer_json({"object": "list", "data": [each for each in shown if each is not None]})

    async def _model(self, client: Client) -> None:
        credential = await self._authenticate(client)
        name = client.path.removeprefix("/v1/models/")
        models = await self.runtime.authenticator.current_models(credential)
        entry = await self.runtime.catalog.find(name)
        slug = entry.slug if entry is not None else name
        for model in models:
            if model[0] == slug:
                shown = model_answers.model_object(*model, entry, utc_now())
                if shown is None:
                    raise errors.retired_model(slug, entry.successor if entry else None)
                await client.answer_json(shown)
                return
        raise errors.unknown_model(name)

    async def _balance(self, client: Client) -> None:
        await balance.answer_balance(self.runtime, client, await self._authenticate(client))

    # For operators.

    async def _healthz(self, client: Client) -> None:
        await client.answer_json({"status": "ok"})

    async def _readyz(self, client: Client) -> None:
        """Ready: the catalog is loaded, the database answers, and no drain is under way."""
        state = {"status": "ok"}
        if self.runtime.is_draining:
            state = {"status": "draining"}
        elif not self.runtime.catalog.is_loaded:
            state = {"status": "catalog not loaded"}
        else:
            try:
                await in_time(self.runtime.database.ping(), 2.0)
            except Exception:  # noqa: BLE001 - whatever it is, the process is not ready
                state = {"status": "database unreachable"}
        await client.answer_json(state, status=200 if state["status"] == "ok" else 503)

    async def _metrics(self, client: Client) -> None:
        if not client.may_read_metrics(self._metrics_token):
            raise CallError(404, "not_found", "There is nothing at this address.")
        body, content_type = metrics.render()
        await client.answer(body, content_type=content_type.encode())
