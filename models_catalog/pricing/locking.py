"""Whoever publishes prices waits for whoever does already: operators and catalog files alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import psycopg
from django.db import OperationalError, connections

# Two changes wait for each other, but not for long.
_LOCK_TIMEOUT_MS: Final = 10_000
_ADVISORY_KEY: Final = 0x534C_4341_5441_4C47


class CatalogBusy(RuntimeError):
    """Somebody else is changing the catalog; nothing was changed."""


def lock_catalog(using: str, now: datetime | None) -> datetime:
    """One change at a time, until the transaction ends; then the moment from which it holds.

    It is read from the database's clock after the lock was taken: what somebody else published meanwhile
    began before it. A `now` that lies later stands in for it.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_LOCK_TIMEOUT_MS}ms"])
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])
        cursor.execute("SELECT clock_timestamp()")
        clock: datetime = cursor.fetchone()[0]
    return clock if now is None else max(clock, now)


@contextmanager
def busy_is_said() -> Iterator[None]:
    """Errors: CatalogBusy for a lock that was not had in time."""
    try:
        yield
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise CatalogBusy("somebody else is changing the catalog; try again") from error
        raise
