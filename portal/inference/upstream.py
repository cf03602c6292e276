"""Connections to the serving backends, and which of them to try first."""

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import aiohttp

from models_catalog.engines import UpstreamCall
from portal.inference.config import InferenceConfig
from portal.inference.snapshot import Route
from quotas.models import AttemptOutcome

# How long a backend that could not be reached is tried last.
COOL_DOWN_S = 5.0

_FAILURES = frozenset(
    {AttemptOutcome.UNREACHABLE, AttemptOutcome.BACKEND_FAILED, AttemptOutcome.BACKEND_TIMEOUT}
)


class StaleConnection(Exception):
    """A connection that had served before was closed without a byte of an answer."""


class Upstreams:
    """One client session a backend, and the load that this process has put on each deployment."""

    def __init__(self, config: InferenceConfig) -> None:
        self._config = config
        self._sessions: dict[tuple[UUID, bool], aiohttp.ClientSession] = {}
        self._in_flight: dict[UUID, int] = {}
        self._cool_until_s: dict[UUID, float] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def in_order(self, routes: Sequence[Route]) -> list[Route]:
        """The routes to try, best first: not cooling down, then the least loaded for its capacity."""
        now_s = time.monotonic()
        return sorted(
            routes,
            key=lambda route: (
                self._cool_until_s.get(route.backend_id, 0.0) > now_s,
                self._in_flight.get(route.deployment_id, 0) / route.max_concurrency,
            ),
        )

    def entered(self, route: Route) -> None:
        self._in_flight[route.deployment_id] = self._in_flight.get(route.deployment_id, 0) + 1

    def left(self, route: Route, outcome: AttemptOutcome) -> None:
        """An attempt is over; a backend that failed it is tried last for a while."""
        if outcome in _FAILURES:
            self._cool_until_s[route.backend_id] = time.monotonic() + COOL_DOWN_S
        elif outcome == AttemptOutcome.COMPLETED:
            self._cool_until_s.pop(route.backend_id, None)
        remaining = self._in_flight.get(route.deployment_id, 1) - 1
        if remaining > 0:
            self._in_flight[route.deployment_id] = remaining
        else:
            self._in_flight.pop(route.deployment_id, None)

    async def send(self, route: Route, call: UpstreamCall, *, is_fresh: bool) -> aiohttp.ClientResponse:
        """Send the call and wait for the head of the answer.

        is_fresh: on a connection of its own. There is no time limit but for connecting: the caller's clock
        watches the rest. Errors: StaleConnection, aiohttp.ClientError, OSError.
        """
        headers = {**call.headers, "Accept-Encoding": "identity", "User-Agent": "sluice"}
        if route.credential:
            headers["Authorization"] = f"Bearer {route.credential}"
        reuses = route.engine.reuses_connections and not is_fresh
        connection = _Connection()
        try:
            return await self._session(route.backend_id, reuses).post(
                route.base_url + call.path,
                data=call.body,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=connection,
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if connection.is_reused and not isinstance(error, aiohttp.ClientConnectorError):
                raise StaleConnection from error
            raise

    def _session(self, backend_id: UUID, reuses_connections: bool) -> aiohttp.ClientSession:
        key = (backend_id, reuses_connections)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = aiohttp.ClientSession(
                connector=(
                    aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
                    if reuses_connections
                    else aiohttp.TCPConnector(limit=0, force_close=True)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_timeout_s),
                read_bufsize=2**16,
                trace_configs=[_watch_reuse()] if reuses_connections else None,
            )
        return session


class _Connection:
    """Whether the connection that a call went out on had served another one before."""

    is_reused = False


def _watch_reuse() -> aiohttp.TraceConfig:
    async def note(_session: aiohttp.ClientSession, context: Any, _params: Any) -> None:
        context.trace_request_ctx.is_reused = True

    trace: aiohttp.TraceConfig = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace
