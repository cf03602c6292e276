"""The two clocks of a process. Leases and price choice use the database's clock instead."""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The wall clock as an aware datetime in UTC. It can jump; never measure durations with it."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    """Seconds since an arbitrary moment, never going back. Only differences mean anything."""
    return time.monotonic()
