"""How tests reach the database: connections of each role, the doors without an event loop, stored rows."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from django.conf import settings
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row, tuple_row

ResultT = TypeVar("ResultT")


def connection_info(role: str) -> str:
    """A connection string that takes a role of the house: tenant, operator, auth, dataplane or owner."""
    configured: dict[str, Any] = settings.DATABASES[role]
    return make_conninfo(
        host=configured["HOST"],
        port=configured["PORT"],
        user=configured["USER"],
        password=configured["PASSWORD"],
        dbname=configured["NAME"],
        **configured["OPTIONS"],
    )


# A new server process has to compile every function that it calls first, which takes longer than most tests
# do. So connections go from hand to hand, each made as good as new; a few of each role are enough.
_IDLE_EACH = 4
_idle: dict[str, list[psycopg.Connection[Any]]] = {}
_hands = threading.Lock()
_AS_NEW = (
    "RESET ROLE; RESET ALL; UNLISTEN *; CLOSE ALL; SELECT pg_advisory_unlock_all(); "
    "DISCARD TEMP; DISCARD SEQUENCES"
)


@contextmanager
def connected(role: str, *, autocommit: bool = True) -> Iterator[psycopg.Connection[Any]]:
    """A connection as a role that nobody else has meanwhile; whatever is not committed is rolled back at the
    end. That of a tenant is always a new one: what a scope leaves behind is what its tests are about."""
    info = connection_info(role)
    connection = _idle_one(info) or psycopg.connect(info, autocommit=True, connect_timeout=10)
    try:
        connection.autocommit = autocommit
        yield connection
    finally:
        # Closing alone would leave it to the server when the locks are let go.
        if not connection.broken:
            connection.rollback()
        if role == "tenant" or not _is_kept(info, connection):
            connection.close()


def close_idle() -> None:
    """Closes the connections that nobody has at the moment."""
    with _hands:
        for connections in _idle.values():
            while connections:
                connections.pop().close()


def _idle_one(info: str) -> psycopg.Connection[Any] | None:
    while True:
        with _hands:
            connections = _idle.get(info)
            if not connections:
                return None
            connection = connections.pop()
        # A server that has ended since has closed it, which can be read; otherwise there is nothing to read.
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if not poll.poll(0):
            return connection
        connection.close()


def _is_kept(info: str, connection: psycopg.Connection[Any]) -> bool:
    if connection.closed or connection.row_factory is not tuple_row or connection.isolation_level is not None:
        return False
    try:
        connection.autocommit = True
        connection.execute(_AS_NEW)
    except psycopg.Error:
        return False
    with _hands:
        connections = _idle.setdefault(info, [])
        if len(connections) < _IDLE_EACH:
            connections.append(connection)
            return True
    return False


class _AsyncView:
    """A blocking connection that the doors, which are written for asyncio, can call."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    async def execute(self, query: Any, params: Any = None, *, prepare: bool | None = None) -> _AsyncCursor:
        return _AsyncCursor(self._connection.execute(query, params, prepare=prepare))


class _AsyncCursor:
    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()


def blocking(
    door: Callable[..., Coroutine[Any, Any, ResultT]],
    connection: psycopg.Connection[Any],
    *args: Any,
    **kwargs: Any,
) -> ResultT:
    """Call a door (admit_batch, settle_batch, checkpoint_batch, open_attempt) over a blocking connection.

    The coroutine then never waits for an event loop, so it needs none: threads can call it.
    """
    coroutine = door(_AsyncView(connection), *args, **kwargs)
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: ResultT = done.value
        return result
    coroutine.close()
    raise AssertionError("the door waited for something other than its connection")


def wait_until_blocked(backend_pid: int, *, timeout_s: float = 10.0) -> None:
    """Return once that server process waits for a lock; TimeoutError when it does not within the time."""
    deadline_s = time.monotonic() + timeout_s
    with connected("owner") as observer:
        while time.monotonic() < deadline_s:
            row = observer.execute("SELECT cardinality(pg_blocking_pids(%s))", (backend_pid,)).fetchone()
            if row is not None and row[0] > 0:
                return
            time.sleep(0.01)
    raise TimeoutError("nothing blocks that server process")


@dataclass(frozen=True, slots=True)
class Money:
    """A wallet, in nano-units; `receivable` is negative when something is owed."""

    paid: int = 0
    granted: int = 0
    receivable: int = 0
    pending: int = 0


def money_of(tenant_id: UUID) -> Money:
    """The stored wallet of an organization."""
    (wallet,) = rows_of("quotas_wallet", tenant_id=tenant_id)
    return Money(
        wallet["paid_nanos"], wallet["granted_nanos"], wallet["receivable_nanos"], wallet["pending_nanos"]
    )


def rows_of(table: str, *, role: str = "operator", **equal: Any) -> list[dict[str, Any]]:
    """The committed rows of a table whose columns equal the given values.

    Reads over a connection of its own, so tests that run in an event loop can use it too.
    """
    where = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder(column)) for column in equal
    )
    query = sql.SQL("SELECT * FROM {} WHERE {}").format(
        sql.Identifier(table), where if equal else sql.SQL("true")
    )
    with connected(role) as connection:
        return connection.cursor(row_factory=dict_row).execute(query, equal).fetchall()
