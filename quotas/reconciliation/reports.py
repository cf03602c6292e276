"""What people see of reconciliation: per backend and day, per window, per cause and per feed.

Days and periods are read from control windows and discrepancies, never from the records themselves, so that a
page costs the same whatever the traffic was. Reads run in a scope that sees all organizations (operator).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connections

from quotas.models import ControlWindow, WindowState
from quotas.reconciliation.watermark import FeedWatermark, calls_read_to, watermarks
from tenants.scope import scope_alias

__all__ = [
    "BackendDay",
    "BackendOverrun",
    "BackendTotals",
    "FeedWatermark",
    "ReconciliationSummary",
    "WindowCause",
    "WindowRow",
    "backend_days",
    "backend_totals",
    "backend_windows",
    "overrun_by_backend",
    "reconciliation_summary",
    "watermarks",
]

_SUMS: Final = """
  coalesce(sum(w.counter_prompt_tokens + w.counter_completion_tokens), 0)::bigint,
  coalesce(sum(w.matched_prompt_tokens + w.matched_completion_tokens), 0)::bigint,
  coalesce(sum(w.explained_prompt_tokens + w.explained_completion_tokens), 0)::bigint,
  coalesce(sum(w.suspense_prompt_tokens + w.suspense_completion_tokens), 0)::bigint,
  coalesce(sum(w.attempts), 0)::bigint, coalesce(sum(w.matched_attempts), 0)::bigint, count(w.id),
  count(w.id) FILTER (WHERE w.state = 'CLOSED'),
  coalesce(sum(abs(w.suspense_prompt_tokens) + abs(w.suspense_completion_tokens)), 0)::bigint
"""

_DAYS: Final = f"""
SELECT b.id, b.code, b.engine, d.*
FROM models_catalog_servingbackend b
CROSS JOIN LATERAL (
  SELECT (w.to_at AT TIME ZONE 'UTC')::date AS day, {_SUMS}
  FROM quotas_controlwindow w WHERE w.backend_id = b.id AND w.to_at >= %(since)s AND w.to_at < %(until)s
  GROUP BY 1
) d
ORDER BY d.day DESC, b.code
"""  # noqa: S608

_TOTALS: Final = f"""
SELECT b.id, b.code, b.engine, d.*
FROM models_catalog_servingbackend b
CROSS JOIN LATERAL (
  SELECT {_SUMS}
  FROM quotas_controlwindow w WHERE w.backend_id = b.id AND w.to_at > %(since)s AND w.to_at <= %(until)s
  HAVING count(*) > 0
) d
ORDER BY b.code
"""  # noqa: S608

_CAUSES: Final = """
SELECT w.backend_id, c.kind, sum(c.attempts)::bigint, sum(c.prompt)::bigint, sum(c.completion)::bigint
FROM models_catalog_servingbackend b
JOIN quotas_controlwindow w ON w.backend_id = b.id AND w.to_at > %(since)s AND w.to_at <= %(until)s
CROSS JOIN LATERAL jsonb_to_recordset(w.causes)
  AS c(kind text, attempts bigint, prompt bigint, completion bigint)
GROUP BY 1, 2 ORDER BY 1, 2
"""

_WAITING: Final = """
SELECT (SELECT count(*) FROM quotas_discrepancy WHERE state IN ('OPEN', 'WAITING')),
  (SELECT count(*) FROM quotas_discrepancy WHERE state = 'WAITING'),
  (SELECT count(*) FROM quotas_feedquarantine WHERE state = 'OPEN'), s.items, s.tokens
FROM (SELECT count(*) AS items,
        coalesce(sum(abs(prompt_tokens) + abs(completion_tokens)), 0)::bigint AS tokens
      FROM quotas_suspenseitem WHERE state = 'OPEN') s
"""

_OVERRUN: Final = """
SELECT b.id, b.code, count(*),
  coalesce(sum(greatest(d.feed_prompt_tokens - d.gateway_prompt_tokens, 0)), 0)::bigint,
  coalesce(sum(greatest(d.feed_completion_tokens - d.gateway_completion_tokens, 0)), 0)::bigint,
  coalesce(sum(d.overrun_nanos), 0)::bigint
FROM quotas_discrepancy d JOIN models_catalog_servingbackend b ON b.id = d.backend_id
WHERE d.kind = 'SURPLUS' AND d.event_at >= %(since)s AND d.event_at < %(until)s
GROUP BY 1, 2 ORDER BY 2
"""


@dataclass(frozen=True, slots=True)
class BackendDay:
    """One day (UTC) of one backend; a window belongs to the day in which it ended. Tokens: prompt and
    completion together."""

    backend_id: UUID
    backend_code: str
    engine: str
    day: date
    counter_tokens: int
    matched_tokens: int
    explained_tokens: int
    suspense_tokens: int
    attempts: int
    matched_attempts: int
    windows: int
    closed_windows: int
    unexplained_tokens: int

    @property
    def unexplained_share(self) -> float:
        """Of what the counters say, 0 … 1. Windows above 0 and below do not make up for one another."""
        return self.unexplained_tokens / self.counter_tokens if self.counter_tokens else 0.0

    @property
    def is_closed(self) -> bool:
        return self.windows == self.closed_windows


@dataclass(frozen=True, slots=True)
class WindowCause:
    """One cause in a window: the attempts (or records) it concerns, and its part of what is explained."""

    kind: str
    attempts: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One control window. counter = matched + explained + suspense, in prompt and in completion tokens."""

    id: UUID
    incarnation: int
    from_at: datetime
    to_at: datetime
    state: WindowState
    attempts: int
    matched_attempts: int
    counter_prompt_tokens: int
    counter_completion_tokens: int
    matched_prompt_tokens: int
    matched_completion_tokens: int
    explained_prompt_tokens: int
    explained_completion_tokens: int
    suspense_prompt_tokens: int
    suspense_completion_tokens: int
    causes: tuple[WindowCause, ...]
    computed_at: datetime


@dataclass(frozen=True, slots=True)
class BackendTotals:
    """One backend over a stretch of time, with its causes of what is explained."""

    backend_id: UUID
    backend_code: str
    engine: str
    counter_tokens: int
    matched_tokens: int
    explained_tokens: int
    suspense_tokens: int
    attempts: int
    matched_attempts: int
    windows: int
    closed_windows: int
    unexplained_tokens: int
    causes: tuple[WindowCause, ...]

    @property
    def unexplained_share(self) -> float:
        return self.unexplained_tokens / self.counter_tokens if self.counter_tokens else 0.0

    @property
    def matched_share(self) -> float:
        return self.matched_tokens / self.counter_tokens if self.counter_tokens else 1.0

    def is_too_much(self, alert_ppm: int) -> bool:
        """Whether more is unexplained than so many parts per million of what the backend counted."""
        return self.unexplained_tokens * 1_000_000 > self.counter_tokens * alert_ppm


@dataclass(frozen=True, slots=True)
class ReconciliationSummary:
    """All backends of the last day, and what waits for somebody. complete_to: what invoices wait for; None
    without any feed."""

    complete_to: datetime | None
    open_discrepancies: int
    waiting_approvals: int
    open_suspense_items: int
    open_suspense_tokens: int
    quarantined_lines: int
    blocking_feeds: int
    backends: tuple[BackendTotals, ...]


@dataclass(frozen=True, slots=True)
class BackendOverrun:
    """What a backend generated for calls that had broken off, beyond what was delivered: our expense."""

    backend_id: UUID
    backend_code: str
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    overrun_nanos: int


def backend_days(*, since: date, until: date) -> list[BackendDay]:
    """Days from `since` up to and without `until`, newest first, then by the backends' codes."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_DAYS, {"since": _midnight(since), "until": _midnight(until)})
        return [BackendDay(*row) for row in cursor.fetchall()]


def backend_totals(*, since: datetime, until: datetime) -> list[BackendTotals]:
    """Windows that ended after `since` and not after `until`, by the backends' codes."""
    causes: dict[UUID, list[WindowCause]] = {}
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_CAUSES, {"since": since, "until": until})
        for backend_id, *values in cursor.fetchall():
            causes.setdefault(backend_id, []).append(WindowCause(*values))
        cursor.execute(_TOTALS, {"since": since, "until": until})
        return [BackendTotals(*(*row, tuple(causes.get(row[0], ())))) for row in cursor.fetchall()]


def backend_windows(*, backend_id: UUID, day: date) -> list[WindowRow]:
    """The windows of a backend that ended on a day (UTC), newest first."""
    windows = ControlWindow.objects.filter(
        backend_id=backend_id, to_at__gte=_midnight(day), to_at__lt=_midnight(day + timedelta(days=1))
    ).order_by("-to_at")
    return [_window(window) for window in windows]


def reconciliation_summary(*, now: datetime, marks: Sequence[FeedWatermark]) -> ReconciliationSummary:
    """The last 24 hours of all backends, and whatever waits, however old. marks: of all feeds, now."""
    totals = backend_totals(since=now - timedelta(days=1), until=now)
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_WAITING)
        discrepancies, approvals, lines, items, item_tokens = cursor.fetchone()
    return ReconciliationSummary(
        complete_to=calls_read_to(marks),
        open_discrepancies=discrepancies,
        waiting_approvals=approvals,
        open_suspense_items=items,
        open_suspense_tokens=item_tokens,
        quarantined_lines=lines,
        blocking_feeds=sum(mark.is_blocking for mark in marks),
        backends=tuple(totals),
    )


def overrun_by_backend(*, since: datetime, until: datetime) -> Sequence[BackendOverrun]:
    """Of calls that broke off in a half-open period, as the backends' records say."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_OVERRUN, {"since": since, "until": until})
        return [BackendOverrun(*row) for row in cursor.fetchall()]


def _window(window: ControlWindow) -> WindowRow:
    causes: list[dict[str, Any]] = window.causes
    return WindowRow(
        id=window.id,
        incarnation=window.incarnation,
        from_at=window.from_at,
        to_at=window.to_at,
        state=WindowState(window.state),
        attempts=window.attempts,
        matched_attempts=window.matched_attempts,
        counter_prompt_tokens=window.counter_prompt_tokens,
        counter_completion_tokens=window.counter_completion_tokens,
        matched_prompt_tokens=window.matched_prompt_tokens,
        matched_completion_tokens=window.matched_completion_tokens,
        explained_prompt_tokens=window.explained_prompt_tokens,
        explained_completion_tokens=window.explained_completion_tokens,
        suspense_prompt_tokens=window.suspense_prompt_tokens,
        suspense_completion_tokens=window.suspense_completion_tokens,
        causes=tuple(
            WindowCause(one["kind"], one["attempts"], one["prompt"], one["completion"]) for one in causes
        ),
        computed_at=window.computed_at,
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
