"""One socket of the playground: who may open it, what it is told, and that nothing outlives it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from django.utils import translation

from portal.kit import logs
from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from portal.pages.access import Organization
from portal.pages.crowding import Rate, TooMany
from portal.pages.sockets import Receive, Refused, Scope, Send, refuse
from portal.playground import limits, wording
from portal.playground.members import Member, find_member, find_payer
from portal.playground.messages import (
    MAX_MESSAGE_BYTES,
    AskEnded,
    Ended,
    Error,
    Outgoing,
    Run,
    Stop,
    Unreadable,
    read,
    write,
)
from portal.playground.process import INFERENCE
from portal.playground.receipts import Receipts
from portal.playground.run import PlaygroundRun

logger = logging.getLogger(__name__)

# How long a run that was stopped because its socket went may take to hand over its settlement.
END_WITHIN_S = 10.0

_GOING = {
    Refused.SIGNED_OUT: "signed_out",
    Refused.NOT_ALLOWED: "not_allowed",
    Refused.NOT_FOUND: "not_allowed",
}


async def playground(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application behind ws/o/<organization>/playground."""
    socket = Socket(scope, receive, send)
    language = _language(scope)
    # The language holds for everything that this task and its runs say.
    with translation.override(language):
        await socket.serve()


class Socket:
    """Lives as long as its connection. One run at a time."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._organization_id: str = scope["url_route"]["kwargs"]["organization"]
        self._session_key: str | None = scope["session"].session_key
        self._abort: Callable[[], None] | None = scope.get("state", {}).get("abort")
        self._rate = Rate(limits.MAX_MESSAGES_PER_MINUTE)
        self._task: asyncio.Task[None] | None = None
        self._run: PlaygroundRun | None = None
        self._must_stop = False

    async def serve(self) -> None:
        if (await self._receive())["type"] != "websocket.connect":
            return
        user = self._scope["user"]
        if not getattr(user, "is_authenticated", False):
            await self._refuse(Refused.SIGNED_OUT)
        elif not limits.CONNECTS.allows(user.pk):
            await self._refuse(Refused.TOO_MANY)
        else:
            try:
                # Before anything is looked up: few threads ask the database for everybody.
                with limits.SOCKETS.take(user.pk):
                    await self._serve_person()
            except TooMany:
                await self._refuse(Refused.TOO_MANY)

    async def _serve_person(self) -> None:
        standing = await find_member(self._session_key, self._organization_id)
        if isinstance(standing, Refused):
            await self._refuse(standing)
            return
        await self._send({"type": "websocket.accept"})
        await self._serve_member()

    async def _refuse(self, reason: Refused) -> None:
        await refuse(self._receive, self._send, reason)

    async def _serve_member(self) -> None:
        try:
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    return
                if not await self._handle(message.get("text")):
                    return
        except OSError:
            logger.debug("playground.client.gone")
        finally:
            await self._end()

    async def _end(self) -> None:
        """Whatever ends the socket ends its run, and the backend with it."""
        self._must_stop = True
        if self._run is not None:
            self._run.abandon()
        if self._task is not None and not self._task.done():
            _done, running = await asyncio.wait({self._task}, timeout=END_WITHIN_S)
            for task in running:
                task.cancel()

    async def _handle(self, text: str | None) -> bool:
        """Answers one message; False when the socket was closed."""
        if not self._rate.allows():
            await self._emit(wording.simple("too_many_messages"))
            return True
        if text is None or len(text) > MAX_MESSAGE_BYTES or len(text.encode()) > MAX_MESSAGE_BYTES:
            await self._emit(wording.simple("too_large"))
            return True
        try:
            message = read(text)
        except Unreadable as error:
            await self._emit(wording.simple("unreadable", detail=str(error)))
            return True
        match message:
            case Stop():
                self._must_stop = True
                if self._run is not None:
                    self._run.stop()
            case Run() if self._task is not None and not self._task.done():
                await self._emit(wording.simple("busy", run_number=message.id))
            case Run():
                self._must_stop = False
                self._task = asyncio.create_task(self._guard(self._serve_run(message), message.id))
            case AskEnded():
                return await self._tell_ended(message)
        return True

    async def _guard(self, work: Awaitable[None], run_number: int) -> None:
        """A run that fails for a reason of ours must not end without a word."""
        try:
            await work
        except OSError:
            logger.debug("playground.client.gone")
        except Exception:
            logger.exception("playground.run.failed")
            with contextlib.suppress(OSError):
                await self._emit(wording.simple("internal", run_number=run_number))
        finally:
            self._run = None

    async def _serve_run(self, message: Run) -> None:
        runtime, secrets = INFERENCE.runtime, INFERENCE.secrets
        if runtime is None or secrets is None:
            await self._emit(wording.simple("not_ready", run_number=message.id))
            return
        # Asked again at each run: a session may have ended and a membership been taken meanwhile.
        payer = await find_payer(self._session_key, self._organization_id, secrets)
        if isinstance(payer, Refused):
            await self._emit(wording.simple(_GOING[payer], run_number=message.id))
            await self._send({"type": "websocket.close", "code": int(payer)})
            return
        assert payer.credential is not None
        try:
            with limits.RUNS.take(payer.organization.user_id):
                run = self._run = PlaygroundRun(
                    runtime,
                    INFERENCE.receipts,
                    run=message,
                    organization=payer.organization,
                    credential=payer.credential,
                    emit=self._emit,
                )
                logs.bind(request_id=run.public_id)
                if self._must_stop:
                    run.stop()
                await run.serve()
                if run.was_stalled and self._abort is not None:
                    # It takes nothing, not even the news that it was cut.
                    self._abort()
        except TooMany:
            await self._emit(wording.simple("too_many_runs", run_number=message.id))

    async def _tell_ended(self, message: AskEnded) -> bool:
        """Says what became of an earlier run of this member; False when the socket was closed."""
        runtime, secrets = INFERENCE.runtime, INFERENCE.secrets
        if runtime is None or secrets is None:
            await self._emit(Ended(found=False))
            return True
        payer = await find_payer(self._session_key, self._organization_id, secrets)
        if isinstance(payer, Refused):
            await self._send({"type": "websocket.close", "code": int(payer)})
            return False
        await self._emit(await self._ended(INFERENCE.receipts, payer, message))
        return True

    async def _ended(self, receipts: Receipts, payer: Member, asked: AskEnded) -> Ended:
        assert payer.credential is not None
        try:
            request_id = (
                parse_public_id(PREFIXES["request"], asked.request_id)
                if asked.request_id
                else await receipts.newest(payer.credential, since_s=asked.since_s)
            )
        except InvalidPublicId:
            return Ended(found=False)
        receipt = await receipts.settled(payer.credential, request_id) if request_id else None
        if receipt is None or request_id is None:
            return Ended(found=False)
        spelt = public_id(PREFIXES["request"], request_id)
        organization: Organization = payer.organization
        return Ended(
            found=True,
            request_id=spelt,
            text=wording.ended(receipt),
            receipt_url=wording.receipt_url(organization, spelt),
        )

    async def _emit(self, message: Outgoing | Error) -> None:
        """Returns when the message has left for the browser; OSError when the browser is gone."""
        await self._send({"type": "websocket.send", "text": write(message)})


def _language(scope: Scope) -> str:
    """The language of the page that opened the socket, found as for pages: cookie, then the browser's."""
    headers = dict(scope.get("headers") or ())
    accepted = headers.get(b"accept-language", b"").decode("latin-1")
    asked = SimpleNamespace(COOKIES=scope.get("cookies") or {}, META={"HTTP_ACCEPT_LANGUAGE": accepted})
    return translation.get_language_from_request(asked)  # type: ignore[arg-type]
