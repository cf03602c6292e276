"""The connections to one backend."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from portal.inference.wire.connection import WireConnection
from portal.inference.wire.errors import Unreachable
from portal.inference.wire.response import Response

# Shorter than any engine waits, or calls would meet connections that are being closed.
KEEP_ALIVE_S = 3.0
MAX_IDLE = 1024
MAX_CACHED_HEADS = 64


class WirePool:
    """Belongs to one event loop. base_url: http or https, perhaps with a path before every other."""

    def __init__(self, base_url: str, *, connect_timeout_s: float) -> None:
        """Raises ValueError for an address that is none."""
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("a backend's address begins with http:// or https:// and a host")
        self._host = url.hostname.encode("idna").decode() if not url.hostname.isascii() else url.hostname
        self._is_tls = url.scheme == "https"
        self._port = url.port or (443 if self._is_tls else 80)
        self._prefix = url.path.rstrip("/")
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = host if url.port is None else f"{host}:{url.port}"
        self._connect_timeout_s = connect_timeout_s
        # The connection that was used last serves next, so that those that are not needed grow old.
        self._idle: list[WireConnection] = []
        self._open: set[WireConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._heads: dict[tuple[str, bool, tuple[tuple[str, str], ...]], bytes] = {}
        self._is_closed = False

    @property
    def is_used(self) -> bool:
        return bool(self._open)

    def close(self) -> None:
        """Drop every connection, also those that are in use."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.abort()
        self._open.clear()
        self._idle.clear()

    async def post(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        reuses: bool = True,
        is_fresh: bool = False,
    ) -> Response:
        """Send a request and wait for the head of its answer, however long that takes.

        reuses: whether the connection may serve other calls too. is_fresh: it must not have served one.
        Raises WireError; StaleConnection says nothing about the backend.
        """
        head = self._head(path, headers, reuses=reuses) + b"%d\r\n\r\n" % len(body)
        connection = self._take() if reuses and not is_fresh else None
        if connection is None:
            connection = await self._connect()
        response, asked = connection.send(head, body)
        try:
            return await asked
        except asyncio.CancelledError:
            # Not the connection itself: if the answer has ended meanwhile, it serves somebody else.
            response.release()
            raise

    # For connections.

    def take_back(self, connection: WireConnection) -> bool:
        """The connection is free again; False when it is not wanted."""
        if self._is_closed or connection not in self._open or len(self._idle) >= MAX_IDLE:
            return False
        connection.idle_since_s = time.monotonic()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep)
        return True

    def forget(self, connection: WireConnection) -> None:
        """The connection is closed."""
        self._open.discard(connection)

    # The inside.

    def _head(self, path: str, headers: Mapping[str, str], *, reuses: bool) -> bytes:
        """All of the head but for the value of its last line, Content-Length."""
        key = (path, reuses, tuple(headers.items()))
        head = self._heads.get(key)
        if head is None:
            lines = [f"POST {self._prefix}{path} HTTP/1.1", f"Host: {self._authority}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            if not reuses:
                lines.append("Connection: close")
            if any("\r" in line or "\n" in line or "\0" in line for line in lines):
                raise Unreachable("a header has signs that no header may have")
            head = "\r\n".join([*lines, "Content-Length: "]).encode("utf-8", "replace")
            if len(self._heads) >= MAX_CACHED_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _take(self) -> WireConnection | None:
        oldest_s = time.monotonic() - KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                if connection.idle_since_s > oldest_s:
                    return connection
                connection.abort()
            self._open.discard(connection)
        return None

    async def _connect(self) -> WireConnection:
        if self._is_closed:
            raise Unreachable("the pool is closed")
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: WireConnection(self),
                    self._host,
                    self._port,
                    ssl=_tls() if self._is_tls else None,
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            # TLS errors are among them.
            raise Unreachable("the backend could not be reached") from error
        if connection.is_closed or self._is_closed:
            connection.abort()
            raise Unreachable("the connection was closed before it was used")
        self._open.add(connection)
        return connection

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest_s = time.monotonic() - KEEP_ALIVE_S
        kept = []
        for connection in self._idle:
            if connection.is_closed:
                self._open.discard(connection)
            elif connection.idle_since_s <= oldest_s:
                connection.abort()
                self._open.discard(connection)
            else:
                kept.append(connection)
        self._idle = kept
        self._sweeper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep) if kept else None


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
