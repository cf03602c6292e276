"""Asks every backend of the catalog again and again whether it is there, and tells the routing.

A backend that serves calls is well and need not be asked. One that does not answer is asked twice before
nothing is sent there any more; as soon as it answers again, its calls come back little by little.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import aiohttp

from portal.inference.ending import end_all
from portal.inference.lanes import BackendLoad
from portal.inference.routing import Routing
from portal.inference.snapshot import Route
from portal.kit import metrics

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.25
TIMEOUT_S: Final = 2.0
# One that failed is asked again after so long; so many failures in a row, and it is down. Whoever is slow
# gets one more.
AGAIN_S: Final = 1.0
DOWN_AFTER: Final = 2
LATE_DOWN_AFTER: Final = 3
LATE: Final = "no answer in time"
AT_A_TIME: Final = 16
# So that gateways do not all ask at the same moment.
JITTER: Final = 0.2

BACKEND_UP = metrics.gauge("backend_up", "Whether a backend answers its health checks.", ["backend"])


class _Check:
    __slots__ = ("failed_at_s", "failures", "is_running", "next_at_s")

    def __init__(self, next_at_s: float) -> None:
        self.next_at_s = next_at_s
        self.failures = 0
        self.failed_at_s = 0.0
        self.is_running = False


class HealthWatch:
    """`look` is to be called every LOOK_S seconds.

    interval_s: between two checks of a backend that is well.
    """

    def __init__(
        self, routing: Routing, *, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._routing = routing
        self._interval_s = interval_s
        self._clock = clock
        self._checks: dict[UUID, _Check] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._session: aiohttp.ClientSession | None = None
        routing.on_silence = self.ask_soon

    async def look(self) -> None:
        """Begin the checks that are due."""
        now_s = self._clock()
        backends = self._routing.backends
        for backend_id in self._checks.keys() - backends.keys():
            del self._checks[backend_id]
        for backend in list(backends.values()):
            check = self._checks.get(backend.backend_id)
            if check is None:
                check = self._checks[backend.backend_id] = _Check(now_s + random.random() * AGAIN_S)
            if check.is_running or now_s < check.next_at_s:
                continue
            if not check.failures and now_s - backend.succeeded_at_s < self._interval_s:
                check.next_at_s = now_s + self._spread(self._interval_s)
                continue
            check.is_running = True
            task = asyncio.create_task(self._check(backend, check))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Returns when the checks that have begun are over."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        await end_all(self._tasks)
        if self._session is not None:
            await self._session.close()

    def ask_soon(self, backend_id: UUID) -> None:
        """Somebody could not reach it."""
        check = self._checks.get(backend_id)
        if check is not None:
            check.next_at_s = self._clock()

    async def _check(self, backend: BackendLoad, check: _Check) -> None:
        try:
            async with self._places:
                reason = await self._ask(backend.lanes[0].route) if backend.lanes else ""
            self._note(backend, check, reason)
        finally:
            check.is_running = False

    def _note(self, backend: BackendLoad, check: _Check, reason: str) -> None:
        now_s = self._clock()
        if backend.backend_id not in self._routing.backends:
            return
        if not reason:
            if backend.is_down:
                logger.info("inference.backend.up", extra={"backend": backend.code})
            check.failures = 0
            check.next_at_s = now_s + self._spread(self._interval_s)
            self._routing.backend_is_up(backend.backend_id)
            BACKEND_UP.labels(backend.code).set(1)
            return
        if not check.failures:
            check.failed_at_s = now_s
        check.failures += 1
        check.next_at_s = now_s + self._spread(min(AGAIN_S, self._interval_s))
        if backend.succeeded_at_s > check.failed_at_s:
            # A busy backend may be slow to answer such questions while it serves calls: then it is well.
            check.failures = 0
        elif check.failures >= (LATE_DOWN_AFTER if reason == LATE else DOWN_AFTER):
            if not backend.is_down:
                logger.warning("inference.backend.down", extra={"backend": backend.code, "reason": reason})
            self._routing.backend_is_down(backend.backend_id, reason)
            BACKEND_UP.labels(backend.code).set(0)

    async def _ask(self, route: Route) -> str:
        """Why it is not well; empty when it is."""
        headers = {"Authorization": f"Bearer {route.credential}"} if route.credential else {}
        url = route.base_url + route.engine.health_path
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._open().get(url, headers=headers, allow_redirects=False) as answer,
            ):
                # Whoever has no such page, or wants another credential, is there all the same.
                return f"HTTP {answer.status}" if answer.status >= 500 else ""
        except TimeoutError:
            return LATE
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Messages of connection errors name addresses; their kind says enough.
            return f"not reachable ({type(error).__name__})"

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _spread(self, interval_s: float) -> float:
        return interval_s * random.uniform(1 - JITTER, 1 + JITTER)
