"""One HTTP exchange of the data plane, as the handlers see it."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from uuid import UUID

import msgspec

from portal.inference.call import ModelCall
from portal.inference.errors import CallError

LOOPBACK = frozenset({"127.0.0.1", "::1"})
# How many times the allowed size of a body is read away before it is refused as too large.
DISCARD_FACTOR = 4
# How long a client that takes nothing may hold up the end of its answer.
FINISH_TIMEOUT_S = 2.0


class RequestTooLarge(Exception):
    """The body has more bytes than allowed."""


class SlowBody(Exception):
    """The body did not arrive in time."""


class Client:
    """The other side of one request: reads from it, answers it, and is the sink of a call."""

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        request_id: UUID,
        public_id: str,
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.request_id = request_id
        self.public_id = public_id
        self.status: int | None = None
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._peer = (scope.get("client") or ("", 0))[0]
        self.receive = receive
        self._send = send
        self._abort: Callable[[], None] | None = scope.get("state", {}).get("abort")
        self._is_closed = False

    def header(self, name: bytes) -> bytes | None:
        for key, value in self._headers:
            if key == name:
                return value
        return None

    def may_read_metrics(self, token: str | None) -> bool:
        if token is None:
            return self._peer in LOOPBACK
        given = (self.header(b"authorization") or b"").removeprefix(b"Bearer ")
        return hmac.compare_digest(given, token.encode())

    # Answers.

    async def start(
        self, *, status: int, content_type: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", content_type),
                    (b"x-request-id", self.public_id.encode()),
                    (b"cache-control", b"no-store"),
                    *extra,
                ],
            }
        )

    async def send(self, data: bytes) -> None:
        """Returns when the kernel has all of it: what is billed must not wait in a buffer of this process."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        # The server waits for the rest of the bytes before the next piece; an empty one puts nothing on the
        # wire.
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def finish(self) -> None:
        """End the answer. The connection of a client that takes nothing any more is cut."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            async with asyncio.timeout(FINISH_TIMEOUT_S):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._cut()

    def _cut(self) -> None:
        if self._abort is not None:
            self._abort()

    async def answer(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes,
        extra: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self.start(status=status, content_type=content_type, extra=(length, *extra))
        self._is_closed = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def answer_json(self, value: Any, *, status: int = 200) -> None:
        await self.answer(msgspec.json.encode(value), status=status, content_type=b"application/json")

    async def fail(self, error: CallError) -> None:
        """Answer with the error; when an answer has begun already, there is nothing left to say."""
        if self.status is not None:
            await self.finish()
            return
        extra: tuple[tuple[bytes, bytes], ...] = ()
        if error.retry_after_s is not None:
            extra = ((b"retry-after", str(error.retry_after_s).encode()),)
        if error.status in (408, 413):
            # What is left of the body is not wanted, so the connection cannot serve another request.
            extra = (*extra, (b"connection", b"close"))
        await self.answer(
            error.body(self.public_id), status=error.status, content_type=b"application/json", extra=extra
        )

    async def run_until_gone(self, call: ModelCall) -> None:
        """Run the call, and stop it when the client leaves. The server does not tell us by itself:
        somebody has to wait for its message."""
        running = asyncio.ensure_future(call.run())
        watching = asyncio.ensure_future(self._wait_gone())
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                call.stop("CLIENT_GONE")
                if call.stop_reason is None:
                    # Not admitted yet: an admission that comes through all the same is voided at once.
                    running.cancel()
            try:
                await running
            except asyncio.CancelledError:
                if not watching.done():
                    raise
                return
            if call.stop_reason == "CLIENT_STALLED":
                self._cut()
            await self.finish()
        finally:
            watching.cancel()
            if not running.done():
                running.cancel()

    async def _wait_gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def read_body(client: Client, *, max_bytes: int, timeout_s: int) -> bytes:
    """The whole request body. Raises RequestTooLarge, SlowBody, and CallError when the client left."""
    body = bytearray()
    is_too_large = _declared_bytes(client) > max_bytes
    if is_too_large and client.header(b"expect") is not None:
        # The client waits to be asked for its body.
        raise RequestTooLarge
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while size <= max_bytes * DISCARD_FACTOR:
                message = await client.receive()
                if message["type"] == "http.disconnect":
                    raise CallError(400, "client_gone", "The client left before the body was complete.")
                piece = message.get("body", b"")
                size += len(piece)
                is_too_large = is_too_large or size > max_bytes
                if not is_too_large:
                    body += piece
                if not message.get("more_body"):
                    break
    except TimeoutError:
        if not is_too_large:
            raise SlowBody from None
    if is_too_large:
        # Read away first, within limits: a connection that is closed with bytes unread is reset, and the
        # client might never see the answer.
        raise RequestTooLarge
    return bytes(body)


def _declared_bytes(client: Client) -> int:
    declared = client.header(b"content-length")
    return int(declared) if declared is not None and declared.isdigit() and len(declared) < 20 else 0
