"""What the sockets of all doors share: how they refuse, and the codes with which they close."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from enum import IntEnum
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refused(IntEnum):
    """Why a socket is closed, as its close code. What is others' and what is not at all look the same.

    UNKNOWN: whether it may stay open cannot be found out now; trying again later makes sense.
    """

    SIGNED_OUT = 4401
    NOT_ALLOWED = 4403
    NOT_FOUND = 4404
    TOO_MANY = 4429
    UNKNOWN = 4503


async def refuse(receive: Receive, send: Send, reason: Refused) -> None:
    """Close a socket that asks to be opened. It is accepted first: a browser learns the close code of an
    open connection only."""
    await send({"type": "websocket.accept"})
    with contextlib.suppress(OSError):
        await send({"type": "websocket.close", "code": int(reason)})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """An address that does not exist looks like one of others."""
    await receive()
    await refuse(receive, send, Refused.NOT_FOUND)
