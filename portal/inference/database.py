"""The gateway's way to PostgreSQL: one pool, and the two group commits over it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from portal.inference.config import InferenceConfig
from portal.kit.batching import Busy, LaneLocked
from quotas import admission, settlement

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
# For look-ups that a caller waits for.
LOOK_UP_TIMEOUT_S = 3.0
# Further attempts queue here and not in the pool, whose queue is short: a call has up to eight of them.
ATTEMPTS_AT_A_TIME = 2

# How long a lane of a locked tenant waits for the lock in one try. Short, because lanes share few
# connections: a busy tenant that two gateways serve is often on a lane, and would wait for one that is
# locked for long.
LANE_BLOCK_MS = 100

_TRANSIENT_STATES = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
        "53300",  # too many connections
        "55P03",  # lock not available
        "57014",  # query canceled
        "57P01",  # admin shutdown
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now
    }
)


def is_transient(error: BaseException) -> bool:
    """True for failures that say nothing about the rows: a broken connection, a server that goes away.

    A lock that could not be had is not among them: narrowing the batch down finds whose it is.
    """
    if isinstance(error, PoolTimeout | TooManyRequests):
        return True
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return error.sqlstate is None or (error.sqlstate in _TRANSIENT_STATES and error.sqlstate != "55P03")
    return False


@contextmanager
def _lock_of_one(rows: Sequence[object]) -> Iterator[None]:
    """A statement that never waits for wallets can still meet a lock on another row of a tenant, such as
    the organization's own. Several rows are narrowed down; the one that is left waits on a lane of its own.
    """
    try:
        yield
    except errors.LockNotAvailable as error:
        if len(rows) > 1:
            raise
        raise LaneLocked from error


async def in_time(work: Coroutine[Any, Any, ResultT], timeout_s: float) -> ResultT:
    """The result of database work, or psycopg.OperationalError after `timeout_s` seconds. Cancelling a
    statement on a server that hangs takes ten seconds more; nobody waits for that here."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise psycopg.OperationalError("the database did not answer in time")
    return task.result()


class Database:
    """Connections under the data plane's role, each statement its own transaction."""

    def __init__(self, config: InferenceConfig) -> None:
        self._config = config
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            config.conninfo,
            min_size=2,
            max_size=config.pool_size,
            max_waiting=64,
            timeout=0.5,
            # Giving up early is quicker than backing off: the next caller begins afresh, at once.
            reconnect_timeout=2.0,
            kwargs={"autocommit": True, "prepare_threshold": 0},
            open=False,
            name="dataplane",
        )

        self._attempt_slots = asyncio.Semaphore(ATTEMPTS_AT_A_TIME)

    async def open(self) -> None:
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=5.0)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection from the pool; a broken one is replaced, so that the next try meets a fresh one."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolClosed as error:
            raise psycopg.OperationalError("the pool is closed") from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if error.sqlstate is None:
                # The server went away: connections that idle in the pool are dead too, most likely.
                await self._pool.check()
            raise

    async def admit(self, rows: Sequence[admission.AdmissionRow]) -> list[admission.AdmissionAnswer | Busy]:
        with _lock_of_one(rows):
            async with self.connection() as connection:
                return await admission.admit_batch(connection, rows, lease_s=self._config.lease_s, block_ms=0)

    async def admit_lane(
        self, rows: Sequence[admission.AdmissionRow]
    ) -> list[admission.AdmissionAnswer | Busy]:
        try:
            async with self.connection() as connection:
                return await admission.admit_batch(
                    connection, rows, lease_s=self._config.lease_s, block_ms=LANE_BLOCK_MS
                )
        except errors.LockNotAvailable as error:
            raise LaneLocked from error

    async def open_attempt(
        self, *, attempt_id: UUID, request_id: UUID, deployment_id: UUID, choice_index: int, ordinal: int
    ) -> bool:
        async with self._attempt_slots, self.connection() as connection:
            return await admission.open_attempt(
                connection,
                attempt_id=attempt_id,
                request_id=request_id,
                deployment_id=deployment_id,
                choice_index=choice_index,
                ordinal=ordinal,
            )

    async def settle(
        self, rows: Sequence[settlement.SettlementRow]
    ) -> list[settlement.SettlementAnswer | Busy]:
        with _lock_of_one(rows):
            async with self.connection() as connection:
                return await settlement.settle_batch(connection, rows, block_ms=0)

    async def settle_lane(
        self, rows: Sequence[settlement.SettlementRow]
    ) -> list[settlement.SettlementAnswer | Busy]:
        try:
            async with self.connection() as connection:
                return await settlement.settle_batch(connection, rows, block_ms=LANE_BLOCK_MS)
        except errors.LockNotAvailable as error:
            raise LaneLocked from error

    async def checkpoint(self, rows: Sequence[settlement.CheckpointRow]) -> dict[UUID, bool]:
        async with self.connection() as connection:
            return await settlement.checkpoint_batch(connection, rows, lease_s=self._config.lease_s)

    async def cut_tenants(self, tenant_ids: Sequence[UUID]) -> set[UUID]:
        """Which of these organizations may not even finish the calls in progress."""
        async with self.connection() as connection:
            cursor = await connection.execute(
                "SELECT id FROM tenants_tenant "
                "WHERE id = ANY (%s::uuid[]) AND state <> 'ACTIVE' AND cuts_calls",
                (list(tenant_ids),),
                prepare=True,
            )
            return {row[0] for row in await cursor.fetchall()}

    async def ping(self) -> None:
        async with self.connection() as connection:
            await connection.execute("SELECT 1")
