"""The samples that windows stand on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connections

from quotas.reconciliation.windows.cutting import Sample
from tenants.scope import scope_alias

# Where the windows of each backend that are over end, and the first sample behind; of a backend without any
# its first sample since a moment.
_NEXT: Final = """
SELECT b.id, w.to_at, n.sampled_at
FROM models_catalog_servingbackend b
LEFT JOIN jsonb_to_recordset(%(resume)s::jsonb) AS r(id uuid, resume_at timestamptz) ON r.id = b.id
LEFT JOIN LATERAL (
  SELECT w.to_at FROM quotas_controlwindow w WHERE w.backend_id = b.id AND w.state <> 'OPEN'
  ORDER BY w.to_at DESC LIMIT 1
) w ON true
JOIN LATERAL (
  SELECT s.sampled_at FROM quotas_countersample s
  WHERE s.backend_id = b.id AND s.error = ''
    AND s.sampled_at > COALESCE(GREATEST(w.to_at, r.resume_at), %(first)s) AND s.sampled_at <= %(until)s
  ORDER BY s.sampled_at LIMIT 1
) n ON true
WHERE %(backend)s::uuid IS NULL OR b.id = %(backend)s::uuid
"""

_BETWEEN: Final = """
SELECT r.n, s.incarnation, s.asked_at, s.sampled_at, s.prompt_tokens, s.cached_tokens, s.completion_tokens,
  s.running, s.prompt_excludes_cached
FROM jsonb_to_recordset(%(reaches)s::jsonb)
  AS r(n int, backend_id uuid, from_at timestamptz, to_at timestamptz)
JOIN quotas_countersample s ON s.backend_id = r.backend_id AND s.error = ''
  AND s.sampled_at BETWEEN r.from_at AND r.to_at
ORDER BY r.n, s.sampled_at
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """Samples of a backend from one moment to another, both included. is_last: there are none behind."""

    backend_id: UUID
    from_at: datetime
    to_at: datetime
    is_last: bool


def next_reaches(
    *,
    until: datetime,
    span: timedelta,
    backend_id: UUID | None,
    resume: Mapping[UUID, datetime],
    first_at: datetime,
) -> list[Reach]:
    """The next samples of each backend that no window holds yet, from where its last window ended."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _NEXT,
            {
                "resume": json.dumps(
                    [{"id": str(key), "resume_at": moment.isoformat()} for key, moment in resume.items()]
                ),
                "first": first_at,
                "until": until,
                "backend": backend_id,
            },
        )
        rows = cursor.fetchall()
    return [
        Reach(found, min(ended_at or next_at, next_at), min(next_at + span, until), next_at + span >= until)
        for found, ended_at, next_at in rows
    ]


def samples_between(reaches: Sequence[Reach]) -> Iterator[tuple[Reach, list[Sample]]]:
    """The samples of each reach, in their order; reaches without any are left out."""
    if not reaches:
        return
    rows = [
        {
            "n": number,
            "backend_id": str(reach.backend_id),
            "from_at": reach.from_at.isoformat(),
            "to_at": reach.to_at.isoformat(),
        }
        for number, reach in enumerate(reaches)
    ]
    found: dict[int, list[Sample]] = {}
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_BETWEEN, {"reaches": json.dumps(rows)})
        for number, *values in cursor.fetchall():
            found.setdefault(number, []).append(Sample(*values))
    for number, samples in found.items():
        yield reaches[number], samples
