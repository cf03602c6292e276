"""Until when all that the backends' feeds have to say has been read: their watermarks.

A folder that is watched is complete to when its end was last reached. A feed that is pushed is complete to
what it says itself, or else to the oldest call that waits for its record; with none waiting it is only idle,
and complete to now. A feed that is dead holds up windows and invoices, and says why, but no longer than the
policy's wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connections

from models_catalog.models import UsageFeed
from portal.kit.ids import partition_bound, uuid7_time
from quotas.models import FeedState
from quotas.reconciliation.windows.metered import CLOCK_MARGIN
from quotas.reconciliation.windows.policy import WindowPolicy, window_policy
from tenants.scope import scope_alias

# What is normal between two looks at a folder, or two bodies.
BEHIND: Final = timedelta(minutes=10)

# Whole answers alone surely have a record on every engine.
_OLDEST_WAITING: Final = """
SELECT a.ended_at FROM quotas_attempt a
JOIN models_catalog_deployment d ON d.id = a.deployment_id AND d.backend_id = %(backend)s
WHERE a.id >= %(first)s AND a.ended_at > %(since)s AND a.ended_at <= %(now)s
  AND a.outcome = 'COMPLETED' AND a.completion_tokens IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM quotas_feedrecord r WHERE r.subject_id = a.id AND r.subject_id >= %(first)s)
ORDER BY a.id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class FeedWatermark:
    """How far one feed has been read. complete_to: before its grace. read_to: what is relied on, after grace
    and wait. lag_s: how far complete_to lies behind, in seconds. is_blocking: windows and invoices wait for
    it; is_overdue: they have waited long enough, and go on without."""

    feed_id: UUID
    feed_code: str
    backend_id: UUID
    backend_code: str
    format: str
    complete_to: datetime
    lag_s: int
    error: str
    is_blocking: bool
    is_overdue: bool
    read_to: datetime


def watermarks(*, now: datetime) -> list[FeedWatermark]:
    """Every enabled feed, by its backend's and its own code. In a scope that sees all organizations."""
    policy = window_policy()
    feeds = UsageFeed.objects.filter(is_enabled=True).select_related("backend")
    states = FeedState.objects.in_bulk()
    return [
        _watermark(feed, states.get(feed.id), now, policy) for feed in feeds.order_by("backend__code", "code")
    ]


def backends_read_to(marks: Iterable[FeedWatermark]) -> dict[UUID, datetime]:
    """Until when all feeds of a backend are relied on to have been read; of backends that have any."""
    found: dict[UUID, datetime] = {}
    for mark in marks:
        found[mark.backend_id] = min(mark.read_to, found.get(mark.backend_id, mark.read_to))
    return found


def usage_read_to(now: datetime) -> datetime | None:
    """Calls admitted before this moment have been told of by every feed; None when there is no feed. Counters
    correct nothing, so they hold nothing up."""
    return calls_read_to(watermarks(now=now))


def calls_read_to(marks: Iterable[FeedWatermark]) -> datetime | None:
    """The same, of the watermarks of all feeds."""
    first = min((mark.read_to for mark in marks), default=None)
    # A feed tells of a call when it ends.
    return None if first is None else first - window_policy().call_timeout


def _watermark(
    feed: UsageFeed, state: FeedState | None, now: datetime, policy: WindowPolicy
) -> FeedWatermark:
    grace = timedelta(seconds=feed.grace_s)
    heard_at = state.heard_at if state else None
    complete_to = state.complete_to if state and state.complete_to else uuid7_time(feed.id)
    if not feed.folder:
        # What it did not tell of in time, and told of others since, it will not tell of any more.
        since = max(complete_to, heard_at - grace) if heard_at else complete_to
        complete_to = max(since, _told_to(feed, since, now, policy))
    complete_to = min(complete_to, now)
    is_overdue = now - complete_to > policy.max_wait
    return FeedWatermark(
        feed_id=feed.id,
        feed_code=feed.code,
        backend_id=feed.backend_id,
        backend_code=feed.backend.code,
        format=feed.format,
        complete_to=complete_to,
        lag_s=int((now - complete_to).total_seconds()),
        error=state.error if state else "",
        is_blocking=now - complete_to > BEHIND and not is_overdue,
        is_overdue=is_overdue,
        read_to=max(complete_to - grace, now - policy.max_wait),
    )


def _told_to(feed: UsageFeed, since: datetime, now: datetime, policy: WindowPolicy) -> datetime:
    """The end of the oldest call since then that waits for its record; without any, now."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _OLDEST_WAITING,
            {
                "backend": feed.backend_id,
                "first": partition_bound(since - policy.call_timeout - CLOCK_MARGIN),
                "since": since,
                "now": now,
            },
        )
        row = cursor.fetchone()
    return row[0] if row else now
