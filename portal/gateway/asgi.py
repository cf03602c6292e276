"""The data plane's ASGI application: raw, without middleware and without an ORM on the hot path."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from portal.gateway.http import Client, RequestTooLarge, SlowBody, read_body
from portal.inference import errors, measures
from portal.inference.call import ModelCall
from portal.inference.chat import decode_body, read_chat_request, read_model
from portal.inference.database import in_time
from portal.inference.errors import CallError
from portal.inference.runtime import Runtime
from portal.kit import logs, metrics
from portal.kit.ids import PREFIXES, public_id, uuid7

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


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
            ("POST", "/v1/chat/completions"): self._chat,
            ("GET", "/v1/models"): self._models,
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/metrics"): self._metrics,
        }
        self._paths = {path for _, path in self._routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        request_id = uuid7()
        client = Client(scope, receive, send, request_id, public_id(PREFIXES["request"], request_id))
        logs.bind(request_id=client.public_id)
        try:
            await self._answer(client)
        finally:
            measures.ANSWERS.labels(str(client.status or "none")).inc()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.runtime.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.runtime.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, client: Client) -> None:
        try:
            handler = self._routes.get((client.method, client.path))
            if handler is not None:
                await handler(client)
            elif client.path.startswith("/v1/models/") and client.method == "GET":
                await self._model(client)
            elif client.path in self._paths:
                raise CallError(405, "method_not_allowed", f"{client.method} is not offered at this address.")
            else:
                raise CallError(404, "not_found", "There is nothing at this address.")
        except CallError as error:
            await client.fail(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("gateway.request.failed")
            await client.fail(
                CallError(500, "internal_error", "Something went wrong on our side.", type="server_error")
            )

    # /v1

    async def _chat(self, client: Client) -> None:
        runtime = self.runtime
        if runtime.is_draining:
            raise errors.overloaded("The service is restarting. Try again.")
        credential = await runtime.authenticator.authenticate(client.header(b"authorization"))
        raw = await self._body(client)
        body = decode_body(raw)
        slug = read_model(body)
        entry = await runtime.catalog.find(slug)
        if entry is None:
            raise errors.unknown_model(slug)
        if not entry.routes:
            raise errors.backend_unavailable()
        engines = {route.engine.name: route.engine for route in entry.routes}.values()
        request = read_chat_request(body, raw=raw, entry=entry, engines=engines)
        call = ModelCall(
            runtime,
            request_id=client.request_id,
            credential=credential,
            entry=entry,
            request=request,
            endpoint="chat.completions",
            sink=client,
        )
        await client.run_until_gone(call)

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
        credential = await self.runtime.authenticator.authenticate(client.header(b"authorization"))
        models = await self.runtime.authenticator.current_models(credential)
        await client.answer_json({"object": "list", "data": [_model_object(*model) for model in models]})

    async def _model(self, client: Client) -> None:
        credential = await self.runtime.authenticator.authenticate(client.header(b"authorization"))
        slug = client.path.removeprefix("/v1/models/")
        for model in await self.runtime.authenticator.current_models(credential):
            if model[0] == slug:
                await client.answer_json(_model_object(*model))
                return
        raise errors.unknown_model(slug)

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


def _model_object(slug: str, created: int) -> dict[str, Any]:
    return {"id": slug, "object": "model", "created": created, "owned_by": slug.partition("/")[0]}
