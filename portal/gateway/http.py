"""One HTTP exchange of the data plane, as the handlers see it.

portal.gateway.protocol has the client of the gateway's own server, AsgiClient that of any other.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from uuid import UUID

import msgspec

from portal.inference.call import ModelCall
from portal.inference.conduit import Writer
from portal.inference.errors import CallError
from portal.kit.ids import PREFIXES, public_id, uuid7

LOOPBACK = frozenset({"127.0.0.1", "::1"})
# How many times the allowed size of a body is read away before it is refused as too large.
DISCARD_FACTOR = 4
# How long a client that takes nothing may hold up the end of its answer.
FINISH_TIMEOUT_S = 2.0

Header = tuple[bytes, bytes]


class RequestTooLarge(Exception):
    """The body has more bytes than allowed."""


class SlowBody(Exception):
    """The body did not arrive in time."""


class ClientGone(Exception):
    """The client left before its body was complete."""


class Client:
    """The other side of one request: reads from it, answers it, and is the sink of a call."""

    def __init__(self, *, method: str, path: str, headers: Mapping[bytes, bytes], peer: str) -> None:
        """headers: under lower-case names; of several with one name the first."""
        self.method = method
        self.path = path
        self.request_id: UUID = uuid7()
        self.public_id = public_id(PREFIXES["request"], self.request_id)
        self.status: int | None = None
        # Called, while it is set, when the client leaves.
        self.on_gone: Callable[[], None] | None = None
        # Of every answer to this request, also of an error.
        self.extra_headers: tuple[Header, ...] = ()
        self._headers = headers
        self._peer = peer

    def header(self, name: bytes) -> bytes | None:
        return self._headers.get(name)

    def add_headers(self, headers: tuple[Header, ...]) -> None:
        """Say this with whatever is answered."""
        self.extra_headers += headers

    def may_read_metrics(self, token: str | None) -> bool:
        if token is None:
            # Behind a proxy on this machine everybody seems to be here.
            return self._peer in LOOPBACK and b"x-forwarded-for" not in self._headers
        given = (self.header(b"authorization") or b"").removeprefix(b"Bearer ")
        return hmac.compare_digest(given, token.encode())

    # What a server gives.

    @property
    def writer(self) -> Writer | None:
        """For pieces of an answer that must not wait for a task; None where there is no such way."""
        return None

    @property
    def is_gone(self) -> bool:
        raise NotImplementedError

    def whole_body(self) -> bytes | None:
        """The body, when all of it is there already."""
        return None

    async def body(self, *, max_bytes: int, discard_bytes: int, is_too_large: bool) -> bytes | None:
        """The whole body; None for one that is too large, of which up to `discard_bytes` are read away.
        Raises ClientGone."""
        raise NotImplementedError

    async def start(self, *, status: int, content_type: bytes, extra: tuple[Header, ...] = ()) -> None:
        """Begin an answer that is sent piece by piece."""
        raise NotImplementedError

    async def send(self, data: bytes) -> None:
        """Returns when the kernel has all of it: what is billed must not wait in a buffer of this process."""
        raise NotImplementedError

    async def finish(self) -> None:
        """End the answer. The connection of a client that takes nothing any more is cut."""
        raise NotImplementedError

    async def answer(
        self, body: bytes, *, status: int = 200, content_type: bytes, extra: tuple[Header, ...] = ()
    ) -> None:
        """Answer in one piece."""
        raise NotImplementedError

    def cut(self) -> None:
        """End the connection at once."""
        raise NotImplementedError

    # What handlers need.

    async def answer_json(self, value: Any, *, status: int = 200, extra: tuple[Header, ...] = ()) -> None:
        await self.answer(
            msgspec.json.encode(value), status=status, content_type=b"application/json", extra=extra
        )

    async def fail(self, error: CallError, body: bytes | None = None) -> None:
        """Answer with the error, in its usual form or in this one; when an answer has begun already, there is
        nothing left to say."""
        if self.status is not None:
            await self.finish()
            return
        extra: tuple[Header, ...] = ()
        if error.retry_after_s is not None:
            extra = ((b"retry-after", str(error.retry_after_s).encode()),)
        if error.status in (408, 413):
            # What is left of the body is not wanted, so the connection cannot serve another request.
            extra = (*extra, (b"connection", b"close"))
        await self.answer(
            error.body(self.public_id) if body is None else body,
            status=error.status,
            content_type=b"application/json",
            extra=extra,
        )

    async def run_until_gone(self, call: ModelCall) -> None:
        """Run the call, and stop it when the client leaves."""
        if self.is_gone:
            return
        task = asyncio.current_task()
        assert task is not None

        is_cancelled = False

        def stop() -> None:
            nonlocal is_cancelled
            call.stop("CLIENT_GONE")
            if call.stop_reason is None:
                # Not admitted yet: an admission that comes through all the same is voided at once.
                is_cancelled = True
                task.cancel()

        self.on_gone = stop
        try:
            await call.run()
        except asyncio.CancelledError:
            if not is_cancelled:
                raise
            task.uncancel()
            return
        finally:
            self.on_gone = None
        if call.stop_reason == "CLIENT_STALLED":
            self.cut()
        await self.finish()


async def read_body(client: Client, *, max_bytes: int, timeout_s: int) -> bytes:
    """The whole request body. Raises RequestTooLarge, SlowBody, and CallError when the client left."""
    is_too_large = _declared_bytes(client) > max_bytes
    if is_too_large and client.header(b"expect") is not None:
        # The client waits to be asked for its body.
        raise RequestTooLarge
    whole = client.whole_body()
    if whole is not None and len(whole) <= max_bytes:
        return whole
    try:
        async with asyncio.timeout(timeout_s):
            # One that is too large is read away first, within limits: a connection that is closed with bytes
            # unread is reset, and the client might never see the answer.
            body = await client.body(
                max_bytes=max_bytes, discard_bytes=max_bytes * DISCARD_FACTOR, is_too_large=is_too_large
            )
    except TimeoutError:
        raise (RequestTooLarge if is_too_large else SlowBody) from None
    except ClientGone:
        raise CallError(400, "client_gone", "The client left before the body was complete.") from None
    if body is None:
        raise RequestTooLarge
    return body


def _declared_bytes(client: Client) -> int:
    declared = client.header(b"content-length")
    return int(declared) if declared is not None and declared.isdigit() and len(declared) < 20 else 0


class AsgiClient(Client):
    """On a server that speaks ASGI."""

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, value)
        super().__init__(
            method=scope["method"],
            path=scope["path"],
            headers=headers,
            peer=(scope.get("client") or ("", 0))[0],
        )
        self._receive = receive
        self._send = send
        self._is_gone = False
        self._is_over = False

    @property
    def is_gone(self) -> bool:
        return self._is_gone

    async def body(self, *, max_bytes: int, discard_bytes: int, is_too_large: bool) -> bytes | None:
        body = bytearray()
        size = 0
        while size <= discard_bytes:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            is_too_large = is_too_large or size > max_bytes
            if not is_too_large:
                body += piece
            if not message.get("more_body"):
                break
        return None if is_too_large else bytes(body)

    async def start(self, *, status: int, content_type: bytes, extra: tuple[Header, ...] = ()) -> None:
        self.status = status
        own = (
            (b"content-type", content_type),
            (b"x-request-id", self.public_id.encode()),
            (b"cache-control", b"no-store"),
        )
        headers = [*own, *self.extra_headers, *extra]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        try:
            async with asyncio.timeout(FINISH_TIMEOUT_S):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self.cut()

    async def answer(
        self, body: bytes, *, status: int = 200, content_type: bytes, extra: tuple[Header, ...] = ()
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self.start(status=status, content_type=content_type, extra=(length, *extra))
        self._is_over = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def cut(self) -> None:
        """A server cannot be told to; it gives up on the connection by itself."""
        self._is_over = True

    async def run_until_gone(self, call: ModelCall) -> None:
        # The server does not tell us by itself: somebody has to wait for its message.
        watching = asyncio.ensure_future(self._watch())
        try:
            await super().run_until_gone(call)
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        if self.on_gone is not None:
            self.on_gone()
