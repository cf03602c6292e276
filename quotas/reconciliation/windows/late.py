"""What records say of a window after it was closed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import connections

from tenants.scope import scope_alias

REACH: Final = timedelta(days=14)
REASON: Final = "named by records that came late"

# Records that name none of our attempts are suspense items themselves: what a counter said of them before is
# not in suspense a second time.
_EXPLAIN: Final = """
UPDATE quotas_suspenseitem s SET state = 'EXPLAINED', resolved_at = %(now)s, reason = %(reason)s
FROM quotas_controlwindow w
CROSS JOIN LATERAL (
  SELECT sum(r.prompt_tokens) AS prompt, sum(r.completion_tokens) AS completion FROM quotas_feedrecord r
  WHERE r.backend_id = w.backend_id AND r.verdict = 'FOREIGN' AND r.is_late
    AND r.event_at > w.from_at AND r.event_at <= w.to_at
) r
WHERE s.window_id = w.id AND s.kind = 'COUNTER' AND s.state = 'OPEN' AND s.event_at > %(since)s
  AND s.prompt_tokens >= 0 AND s.completion_tokens >= 0
  AND r.prompt >= s.prompt_tokens AND r.completion >= s.completion_tokens
"""


def explain_by_late_records(*, now: datetime) -> int:
    """Resolve items of closed windows that late records name as a whole; how many. As data plane."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_EXPLAIN, {"now": now, "since": now - REACH, "reason": REASON})
        return int(cursor.rowcount)
