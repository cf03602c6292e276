"""One feed a process for all open floors: it reads once a second and tells everybody the newest state.

It runs only while somebody listens. Whoever is slow skips states; nothing queues up for anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError
from redis.exceptions import RedisError

from portal.backoffice.floor.shown import shown
from portal.backoffice.floor.state import Flows
from portal.inference.ending import end_all
from portal.inference.floor_meter import read_floor
from portal.kit import valkey
from portal.kit.clock import utc_now
from quotas.business.floor import FloorBooks, FloorReader
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
BOOKS_EVERY_S: Final = 5.0
# The first state waits so long for the books, so that it does not say less than the page does.
FIRST_BOOKS_S: Final = 3.0
# Prompts come in one piece each; a shorter window would only flicker.
WINDOW_S: Final = 10

READER = FloorReader()
_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="floor-books")


async def read_flows() -> Flows | None:
    """What flows now; None while Valkey does not answer. Opens a connection of its own."""
    client = valkey.connect(settings.VALKEY_URL, max_connections=1)
    try:
        return await _flows(client)
    finally:
        await client.aclose()


async def _flows(client: Any) -> Flows | None:
    try:
        return await read_floor(client, now_s=time.time(), window_s=WINDOW_S)
    except (RedisError, OSError, TimeoutError) as error:
        logger.info("backoffice.floor.no_flow", extra={"reason": type(error).__name__})
        return None


def _read_books() -> FloorBooks:
    with role_scope("operator"):
        return READER.read(now=utc_now())


class Listener:
    """Somebody who is told the newest state, and of those before it nothing."""

    def __init__(self) -> None:
        self._text = ""
        self._is_new = asyncio.Event()

    def tell(self, text: str) -> None:
        self._text = text
        self._is_new.set()

    async def newest(self) -> str:
        """Waits for a state that has not been handed out here yet."""
        await self._is_new.wait()
        self._is_new.clear()
        return self._text


class FloorFeed:
    """Belongs to one event loop while it runs. read_books runs in a thread."""

    def __init__(self, read_books: Callable[[], FloorBooks] = _read_books) -> None:
        self._read_books = read_books
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._books: FloorBooks | None = None
        self._text = ""

    def is_running(self) -> bool:
        return self._task is not None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        """Hears every state while the block runs; the newest at once where there is one."""
        listener = Listener()
        self._listeners.add(listener)
        if self._task is None:
            self._text = ""
            self._task = asyncio.create_task(self._run())
        elif self._text:
            listener.tell(self._text)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._task is not None:
                task, self._task = self._task, None
                await end_all([task])
                await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        client = valkey.connect(settings.VALKEY_URL, max_connections=1)
        read_s = -BOOKS_EVERY_S
        try:
            while True:
                began_s = time.monotonic()
                if self._reading is None and began_s - read_s >= BOOKS_EVERY_S:
                    read_s = began_s
                    self._reading = asyncio.create_task(self._renew_books())
                if self._reading is not None and not self._text:
                    await asyncio.wait({self._reading}, timeout=FIRST_BOOKS_S)
                await self._guarded(self._tell(client))
                await asyncio.sleep(max(0.0, TICK_S - (time.monotonic() - began_s)))
        finally:
            if self._reading is not None:
                self._reading.cancel()
                self._reading = None
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    async def _guarded(self, work: Awaitable[None]) -> None:
        """A mistake in one state must not end all that would follow."""
        try:
            await work
        except Exception:
            logger.exception("backoffice.floor.failed")

    async def _tell(self, client: Any) -> None:
        flows = await _flows(client)
        self._text = json.dumps(shown(self._books, flows, at=utc_now()), separators=(",", ":"))
        for listener in self._listeners:
            listener.tell(self._text)

    async def _renew_books(self) -> None:
        """While the database does not answer the last books stay, and say of when they are."""
        read: Any = database_sync_to_async(self._read_books, thread_sensitive=False, executor=_threads)
        try:
            self._books = await read()
        except DatabaseError as error:
            logger.warning("backoffice.floor.no_books", extra={"reason": type(error).__name__})
        except Exception:
            logger.exception("backoffice.floor.failed")
        finally:
            if self._reading is asyncio.current_task():
                self._reading = None


FEED = FloorFeed()
