"""The socket of the factory floor: for operators in an elevated session, as long as it lasts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import DatabaseError

from portal.backoffice.elevation import elevated_until
from portal.backoffice.floor.feed import FEED, FloorFeed
from portal.inference.ending import end_all
from portal.kit.clock import utc_now
from portal.pages.crowding import Places, Rates, TooMany
from portal.pages.sessions import session_and_user
from portal.pages.sockets import Receive, Refused, Scope, Send, refuse

logger = logging.getLogger(__name__)

# How often it is asked whether the session still is an operator's, and elevated; and how old the last
# answer may get while the database gives none.
CHECK_EVERY_S: Final = 10.0
CHECK_TIMEOUT_S: Final = 5.0
CHECK_AGAIN_S: Final = 2.0
MAX_UNCHECKED_S: Final = 25.0
# A browser that takes nothing for so long is gone, or might as well be.
SEND_TIMEOUT_S: Final = 15.0
POLICY_VIOLATION: Final = 1008

CONNECTS = Rates(60)
SOCKETS = Places(12)

# Its threads are few, and none of the feed's: a slow reading of the figures must not delay the check.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="floor-check")


@dataclass(frozen=True, slots=True)
class Standing:
    """An operator, and until when the session is elevated."""

    user_id: UUID
    until: datetime


async def floor(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application behind ws/operator/floor."""
    await FloorSocket(scope, receive, send, FEED).serve()


async def standing_of(session_key: str | None) -> Standing | Refused:
    """Whether this session may see the floor at this moment; UNKNOWN while the database does not answer."""
    ask: Any = database_sync_to_async(_standing, thread_sensitive=False, executor=_threads)
    asking: asyncio.Task[Standing | Refused] = asyncio.create_task(ask(session_key))
    # What a thread has begun cannot be called off; nobody waits for it any longer, though.
    await asyncio.wait({asking}, timeout=CHECK_TIMEOUT_S)
    if not asking.done():
        asking.add_done_callback(lambda late: late.cancelled() or late.exception())
        logger.warning("backoffice.floor.not_checked", extra={"reason": "timeout"})
        return Refused.UNKNOWN
    try:
        return asking.result()
    except DatabaseError as error:
        logger.warning("backoffice.floor.not_checked", extra={"reason": type(error).__name__})
        return Refused.UNKNOWN


def _standing(session_key: str | None) -> Standing | Refused:
    found = session_and_user(session_key)
    if found is None:
        return Refused.SIGNED_OUT
    session, user = found
    if not user.is_staff:
        # For others than staff the operators' area does not exist.
        return Refused.NOT_FOUND
    until = elevated_until(session, user, now=utc_now())
    return Refused.NOT_ALLOWED if until is None else Standing(user.id, until)


class FloorSocket:
    """Lives as long as its connection and the elevated session. It is told nothing and takes nothing."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, feed: FloorFeed) -> None:
        self._receive = receive
        self._send = send
        self._feed = feed
        self._session_key: str | None = scope["session"].session_key
        self._abort = scope.get("state", {}).get("abort")

    async def serve(self) -> None:
        if (await self._receive())["type"] != "websocket.connect":
            return
        standing = await standing_of(self._session_key)
        if isinstance(standing, Standing) and not CONNECTS.allows(standing.user_id):
            standing = Refused.TOO_MANY
        if isinstance(standing, Refused):
            await refuse(self._receive, self._send, standing)
            return
        try:
            with SOCKETS.take(standing.user_id):
                await self._send({"type": "websocket.accept"})
                await self._serve_operator(standing)
        except TooMany:
            await refuse(self._receive, self._send, Refused.TOO_MANY)
        except OSError:
            logger.debug("backoffice.floor.client_gone")

    async def _serve_operator(self, standing: Standing) -> None:
        """Tells the newest state until the browser goes, the session ends or the process does."""
        work: list[Coroutine[Any, Any, int | None]] = [self._tell(), self._watch(standing), self._listen()]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            done, _running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_all(tasks)
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            reason = task.result()
            if reason is not None:
                await self._in_time({"type": "websocket.close", "code": int(reason)})

    async def _tell(self) -> None:
        async with self._feed.listening() as listener:
            while True:
                await self._in_time({"type": "websocket.send", "text": await listener.newest()})

    async def _in_time(self, message: dict[str, Any]) -> None:
        """Returns when the message has left; OSError when the browser is gone or takes nothing."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._send(message)
        except TimeoutError:
            if self._abort is not None:
                self._abort()
            raise ConnectionAbortedError("the browser takes nothing") from None

    async def _watch(self, standing: Standing) -> Refused:
        """Waits until the session may not see the floor any more, and says why."""
        checked_s = time.monotonic()
        wait_s = CHECK_EVERY_S
        while True:
            left_s = (standing.until - utc_now()).total_seconds()
            await asyncio.sleep(max(0.0, min(wait_s, left_s)))
            answer = await standing_of(self._session_key)
            if isinstance(answer, Standing):
                standing, checked_s, wait_s = answer, time.monotonic(), CHECK_EVERY_S
            elif answer is not Refused.UNKNOWN:
                return answer
            elif utc_now() >= standing.until:
                return Refused.NOT_ALLOWED
            elif time.monotonic() - checked_s + CHECK_AGAIN_S + CHECK_TIMEOUT_S > MAX_UNCHECKED_S:
                return answer
            else:
                wait_s = CHECK_AGAIN_S

    async def _listen(self) -> int | None:
        """Waits until the browser is gone. The page says nothing; whoever does is not the page."""
        message = await self._receive()
        return None if message["type"] == "websocket.disconnect" else POLICY_VIOLATION
