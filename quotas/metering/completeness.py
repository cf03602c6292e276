"""Until when usage is complete: nothing of a call that was admitted before that moment is still to come.

The one place that answers it. Whoever knows of another source of usage, such as a backend's feed, adds to
WATERMARKS until when it has read that source.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connections

from tenants.scope import scope_alias

Watermark = Callable[[datetime], datetime | None]
"""Takes now; until when its source has been read, or None while it says nothing of it. In the open scope."""

WATERMARKS: Final[list[Watermark]] = []

# Partial indexes of the days' partitions lead to the few holds that are open.
_OLDEST_OPEN: Final = (
    "SELECT min(q.admitted_at) FROM quotas_hold h JOIN quotas_inferencerequest q ON q.id = h.request_id"
    " WHERE h.state = 'PENDING' AND (%(tenant)s::uuid IS NULL OR h.tenant_id = %(tenant)s::uuid)"
)


def complete_to(*, now: datetime, grace: timedelta, tenant_id: UUID | None = None) -> datetime:
    """Usage of calls admitted before this moment is complete: each of their holds is resolved, and every
    source of usage was read until then. Of one organization, or of all of them.

    grace: how long after a moment it is complete at the earliest. What comes all the same is a late
    revision; it belongs to what is drawn up next. As operator, or in the organization's scope.
    """
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_OLDEST_OPEN, {"tenant": tenant_id})
        oldest_open = cursor.fetchone()[0]
    marks = [mark for mark in (watermark(now) for watermark in WATERMARKS) if mark is not None]
    if oldest_open is not None:
        marks.append(oldest_open)
    return min([now - grace, *marks])
