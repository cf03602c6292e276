"""A clock that a test sets, for admission and settlement, so that days and months can end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from quotas.tests.doors import Connection
from tests.database import connected

# Functions that pin no search path find this one before the server's own.
_CLOCK = """
DROP SCHEMA IF EXISTS test_clock CASCADE;
CREATE SCHEMA test_clock;
CREATE FUNCTION test_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
  SELECT current_setting('test.now')::timestamptz
$$;
GRANT USAGE ON SCHEMA test_clock TO sluice_dataplane
"""


@dataclass(frozen=True, slots=True)
class ClockedDoors:
    """A connection of the data plane whose clock stands at what was set last."""

    connection: Connection

    def set(self, now: datetime) -> None:
        self.connection.execute("SELECT set_config('test.now', %s, false)", (now.isoformat(),))


@contextmanager
def clocked_doors() -> Iterator[ClockedDoors]:
    """The session lives far from UTC, which must make no difference."""
    with connected("owner") as owner:
        owner.execute(_CLOCK)
        try:
            with connected("dataplane") as connection:
                connection.execute("SET search_path = test_clock, pg_catalog, public")
                connection.execute("SET TIME ZONE 'Asia/Shanghai'")
                yield ClockedDoors(connection)
        finally:
            owner.execute("DROP SCHEMA test_clock CASCADE")
