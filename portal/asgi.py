"""The web process: pages and sockets. The gateway is a process of its own, see
portal.gateway."""

import os

from portal.settings.environment import select_settings

select_settings(database_role="auth")
# The most connections a role of the database that this process holds.
os.environ.setdefault("DATABASE_POOL", "6")
os.environ.setdefault("DATABASE_STATEMENT_TIMEOUT_S", "15")

from collections.abc import Awaitable, Callable, MutableMapping  # noqa: E402
from typing import Any  # noqa: E402

from asgiref.sync import sync_to_async  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.db import connections  # noqa: E402

# Waking a worker needs the application that knows the broker.
from portal import celery as _celery  # noqa: E402, F401
from portal.ingest.bodies import MAX_BYTES  # noqa: E402
from portal.kit import logs  # noqa: E402

logs.configure("web", settings.LOG_LEVEL)
pages: Any = get_asgi_application()

# Django has to be set up before anything that has models is imported.
from portal.playground.process import INFERENCE  # noqa: E402
from portal.sockets import application as sockets  # noqa: E402

# Larger ones no view takes; all of a body is on the disk before a view is asked.
MAX_BODY_BYTES = MAX_BYTES
_TOO_LARGE = b'{"error": "body_too_large", "detail": ""}\n'

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Everything that reaches this process, by its kind."""
    match scope["type"]:
        case "lifespan":
            await _live(receive, send)
        case "http":
            await _bounded_pages(scope, receive, send)
        case "websocket":
            await sockets(scope, receive, send)


async def _bounded_pages(scope: Scope, receive: Receive, send: Send) -> None:
    """Pages, for bodies of at most MAX_BODY_BYTES; longer ones are answered with 413 at once."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    is_too_large = declared.isdigit() and (len(declared) > 18 or int(declared) > MAX_BODY_BYTES)
    received = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal is_too_large, received
        message = await receive()
        received += len(message.get("body", b""))
        if received <= MAX_BODY_BYTES:
            return message
        # Nobody has been asked yet, and whoever reads the body gives it up.
        is_too_large = True
        return {"type": "http.disconnect"}

    if not is_too_large:
        await pages(scope, counted, send)
    if is_too_large:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(_TOO_LARGE)).encode()),
            # The rest of the body is not read.
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": _TOO_LARGE})


def _close_pools() -> None:
    for connection in connections.all():
        connection.close_pool()  # type: ignore[attr-defined]


async def _live(receive: Receive, send: Send) -> None:
    """Opens the inference runtime for the life of the process."""
    await receive()
    await INFERENCE.open(
        database=settings.DATABASES["dataplane"],
        secrets=settings.SECRET_STORE,
        valkey_url=settings.VALKEY_URL,
        tuning=settings.TUNING,
    )
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await INFERENCE.close()
    await sync_to_async(_close_pools)()
    await send({"type": "lifespan.shutdown.complete"})
