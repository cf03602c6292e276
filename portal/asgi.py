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
from portal.kit import logs  # noqa: E402

logs.configure("web", settings.LOG_LEVEL)
pages: Any = get_asgi_application()

# Django has to be set up before anything that has models is imported.
from portal.playground.process import INFERENCE  # noqa: E402
from portal.sockets import application as sockets  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Everything that reaches this process, by its kind."""
    match scope["type"]:
        case "lifespan":
            await _live(receive, send)
        case "http":
            await pages(scope, receive, send)
        case "websocket":
            await sockets(scope, receive, send)


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
