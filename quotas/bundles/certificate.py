"""What is known of how complete and how sure the usage of a period is: the certificate in a bundle.

Asked before the lines are read, so that what it calls complete is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, partition_bound, public_id
from quotas.bundles.lines import moment_text
from quotas.bundles.snapshot import SKEW
from quotas.metering.completeness import complete_to
from quotas.reconciliation.watermark import watermarks
from tenants.scope import scope_alias

# A call is tried again until it is given up, and no call lasts longer.
TRIED_FOR: Final = timedelta(hours=6)

# Tries whose answer came to its end: what both sides should have seen whole. And who was tried at all.
_WITNESSED: Final = """
SELECT count(*) FILTER (WHERE a.outcome = 'COMPLETED'),
  count(*) FILTER (WHERE a.outcome = 'COMPLETED' AND EXISTS (
  SELECT 1 FROM quotas_feedrecord r WHERE r.subject_id = a.id AND r.verdict = 'MATCHED'
    AND r.subject_id >= %(first)s AND r.subject_id < %(last_try)s)),
  array_agg(DISTINCT d.backend_id)
FROM quotas_inferencerequest q
JOIN quotas_attempt a ON a.request_id = q.id AND a.id >= %(first)s AND a.id < %(last_try)s
LEFT JOIN models_catalog_deployment d ON d.id = a.deployment_id
WHERE q.tenant_id = %(tenant)s AND q.id >= %(first)s AND q.id < %(end)s
  AND q.admitted_at >= %(from)s AND q.admitted_at < %(to)s
"""

Source = tuple[str, datetime]


@dataclass(frozen=True, slots=True)
class Certificate:
    """complete_to: usage of calls admitted before it is complete. sources: each feed of the backends that
    served the organization then, and until when it has been read. attempts: whole answers of the period;
    matched_attempts: those of which a backend's own record says the same as we do."""

    complete_to: datetime
    grace: timedelta
    is_complete: bool
    sources: tuple[Source, ...]
    attempts: int
    matched_attempts: int

    def as_json(self) -> dict[str, Any]:
        return {
            "complete_to": moment_text(self.complete_to),
            "grace_s": int(self.grace.total_seconds()),
            "is_complete": self.is_complete,
            "sources": [{"source": name, "complete_to": moment_text(until)} for name, until in self.sources],
            "attempts": self.attempts,
            "matched_attempts": self.matched_attempts,
        }


def certificate(
    *, tenant_id: UUID, from_at: datetime, to_at: datetime, now: datetime, grace: timedelta
) -> Certificate:
    """Of an organization's calls admitted in a half-open period, as known now. As operator."""
    until = complete_to(now=now, grace=grace, tenant_id=tenant_id)
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _WITNESSED,
            {
                "tenant": tenant_id,
                "from": from_at,
                "to": to_at,
                "first": partition_bound(from_at - SKEW),
                "end": partition_bound(to_at + SKEW),
                "last_try": partition_bound(to_at + SKEW + TRIED_FOR),
            },
        )
        attempts, matched, served_by = cursor.fetchone()
    # Of other organizations' backends nothing is told.
    sources = tuple(
        (public_id(PREFIXES["feed"], one.feed_id), one.complete_to)
        for one in watermarks(now=now)
        if one.backend_id in (served_by or ())
    )
    return Certificate(until, grace, until >= to_at, sources, attempts, matched)
