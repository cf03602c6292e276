"""How each backend does lately: calls in flight, how they go, and when its counters were last read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.db import connections, transaction

from portal.kit.ids import partition_bound
from quotas.models import AttemptOutcome
from tenants.scope import scope_alias

RECENT: Final = timedelta(minutes=5)
LONGER: Final = timedelta(minutes=60)
# Gateways stamp the ids of attempts by their own clocks, the database their ends by its.
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
STATEMENT_TIMEOUT_MS: Final = 5_000

# What the backend itself failed at. A client that leaves, a call that is refused as wrong and what a gateway
# cuts or loses say nothing about it; a connection found closed is tried again at once.
FAILED: Final = (AttemptOutcome.BACKEND_FAILED, AttemptOutcome.UNREACHABLE)
TIMED_OUT: Final = (AttemptOutcome.BACKEND_TIMEOUT,)
NO_TRY: Final = (AttemptOutcome.STALE,)

_HEALTH: Final = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class CallWindow:
    """Attempts that ended in a span up to now. ttft_p50_ms: half of them had their first token by then."""

    span: timedelta
    attempts: int = 0
    failed: int = 0
    timeouts: int = 0
    ttft_p50_ms: int | None = None
    output_tokens: int = 0

    @property
    def failed_share(self) -> float | None:
        """Of those that failed or timed out; None when none ended."""
        return (self.failed + self.timeouts) / self.attempts if self.attempts else None

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens of the attempts that ended, over the whole span."""
        return self.output_tokens / self.span.total_seconds()


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """One backend lately. `sample_at` is when its counters were last read, `sample_error` why that has failed
    since; `running` is what the engine itself said to have running then."""

    backend_id: UUID
    max_concurrency: int
    in_flight: int
    recent: CallWindow
    longer: CallWindow
    sample_at: datetime | None
    sample_age_s: float | None
    sample_error: str
    running: int | None

    @property
    def load(self) -> float:
        """Calls in flight over those it serves well at a time: 1.0 is full."""
        return self.in_flight / self.max_concurrency


def backend_health(*, now: datetime, call_timeout_s: int = 900) -> dict[UUID, BackendHealth]:
    """Every backend's health by its id, in the scope of an operator.

    Only attempts of the last hour, and of the longest call before it (call_timeout_s), are looked at.
    Errors: django.db.OperationalError when it takes longer than STATEMENT_TIMEOUT_MS.
    """
    with transaction.atomic(using=scope_alias()), connections[scope_alias()].cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        cursor.execute(
            _HEALTH,
            {
                "first": partition_bound(now - LONGER - timedelta(seconds=call_timeout_s) - CLOCK_TOLERANCE),
                "end": partition_bound(now + CLOCK_TOLERANCE),
                "recent": now - RECENT,
                "longer": now - LONGER,
                "failed": [outcome.value for outcome in FAILED],
                "timed_out": [outcome.value for outcome in TIMED_OUT],
                "no_try": [outcome.value for outcome in NO_TRY],
            },
        )
        rows = cursor.fetchall()
        # The caller's transaction goes on with the limit it had.
        cursor.execute("SET LOCAL statement_timeout TO DEFAULT")
    return {row[0]: _health(row, now) for row in rows}


def _health(row: tuple[Any, ...], now: datetime) -> BackendHealth:
    backend_id, max_concurrency, in_flight = row[:3]
    sample_at, sample_error, running = row[13:]
    return BackendHealth(
        backend_id=backend_id,
        max_concurrency=max_concurrency,
        in_flight=in_flight,
        recent=CallWindow(RECENT, *row[3:8]),
        longer=CallWindow(LONGER, *row[8:13]),
        sample_at=sample_at,
        sample_age_s=max(0.0, (now - sample_at).total_seconds()) if sample_at else None,
        sample_error=sample_error or "",
        running=running,
    )
