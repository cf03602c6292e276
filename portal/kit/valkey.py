"""Connections to Valkey that never wait long: whoever uses them has an answer for its absence."""

from typing import Final

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ValkeyConnectionError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

DEFAULT_TIMEOUT_S: Final = 0.25
MAX_CONNECTIONS: Final = 32


def connect(
    url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, max_connections: int = MAX_CONNECTIONS
) -> redis_asyncio.Redis:
    """A client with a pool of its own; connections open on first use. Values are bytes. Close with `aclose`.

    Waiting for a free connection, connecting and each answer take at most `timeout_s` seconds each. A broken
    connection is replaced once without waiting, so a command may reach the server twice; a timeout is never
    tried again. Raises redis.exceptions.ConnectionError and TimeoutError (both are a RedisError).
    """
    pool = redis_asyncio.BlockingConnectionPool.from_url(
        url,
        timeout=timeout_s,
        max_connections=max_connections,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=AsyncRetry(NoBackoff(), 1, supported_errors=(ValkeyConnectionError,)),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return redis_asyncio.Redis.from_pool(pool)


def connect_sync(
    url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, max_connections: int = MAX_CONNECTIONS
) -> redis.Redis:
    """The same for code without an event loop. Close it with `close`."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        timeout=timeout_s,
        max_connections=max_connections,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(ValkeyConnectionError,)),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return redis.Redis.from_pool(pool)
