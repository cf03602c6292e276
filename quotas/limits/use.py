"""How much of a period is used and reserved: by the counters that admission keeps, else by the rollups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connections

from quotas.limits.periods import period_start
from quotas.limits.values import Place
from quotas.models.limits import ANY, QUOTA_KINDS
from tenants.scope import scope_alias


@dataclass(frozen=True, slots=True)
class Use:
    """Tokens (prompt and completion), or nano-units charged; pending is what open calls reserve."""

    used: int
    pending: int


# A place gets its counter with the first admission under a hard limit; until then, and for soft budgets, the
# sums by model and key of its period, and the open holds, say the same (see quotas_open_limit_uses).
_USE = """
WITH wanted AS (
  SELECT * FROM unnest(
    %(numbers)s::int[], %(models)s::uuid[], %(keys)s::uuid[], %(kinds)s::text[], %(starts)s::date[]
  ) AS w(number, model_id, api_key_id, kind, period_start)
), counted AS MATERIALIZED (
  SELECT w.*, u.tenant_id IS NOT NULL AS has_counter, u.used, u.pending
  FROM wanted w LEFT JOIN quotas_limituse u ON u.tenant_id = %(tenant)s AND u.model_id = w.model_id
    AND u.api_key_id = w.api_key_id AND u.kind = w.kind AND u.period_start = w.period_start
), sums AS MATERIALIZED (
  SELECT r.model_id, r.api_key_id, s.period_start,
    sum(r.prompt_tokens + r.completion_tokens)::bigint AS tokens, sum(r.charged_nanos)::bigint AS nanos
  FROM (SELECT DISTINCT period_start FROM counted WHERE NOT has_counter) s
  JOIN quotas_usagerollup r ON r.tenant_id = %(tenant)s
    AND r.hour >= s.period_start::timestamp AT TIME ZONE 'UTC' AND r.hour <= %(now)s
  GROUP BY 1, 2, 3
), held AS MATERIALIZED (
  SELECT q.model_id, q.api_key_id, s.period_start, sum(h.amount_nanos)::bigint AS nanos,
    sum(q.prompt_bound_tokens + q.choices * q.output_cap_tokens::bigint)::bigint AS tokens
  FROM (SELECT DISTINCT period_start FROM counted WHERE NOT has_counter) s
  JOIN quotas_hold h ON h.tenant_id = %(tenant)s AND h.state = 'PENDING'
  JOIN quotas_inferencerequest q ON q.id = h.request_id
    AND q.admitted_at >= s.period_start::timestamp AT TIME ZONE 'UTC'
  GROUP BY 1, 2, 3
)
SELECT c.number,
  coalesce(c.used, (
    SELECT sum(CASE WHEN c.kind = ANY (%(quotas)s) THEN s.tokens ELSE s.nanos END)::bigint FROM sums s
    WHERE s.period_start = c.period_start AND c.model_id IN (s.model_id, %(any)s)
      AND c.api_key_id IN (s.api_key_id, %(any)s)), 0),
  coalesce(c.pending, (
    SELECT sum(CASE WHEN c.kind = ANY (%(quotas)s) THEN s.tokens ELSE s.nanos END)::bigint FROM held s
    WHERE s.period_start = c.period_start AND c.model_id IN (s.model_id, %(any)s)
      AND c.api_key_id IN (s.api_key_id, %(any)s)), 0)
FROM counted c
"""


def use_of(*, tenant_id: UUID, places: Sequence[Place], now: datetime) -> dict[Place, Use]:
    """What each of these places has used of its present period, in the scope that is open. Rates, whose use
    is in Valkey, are left out."""
    wanted = [(place, start) for place in places if (start := period_start(place.kind, now)) is not None]
    if not wanted:
        return {}
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _USE,
            {
                "tenant": tenant_id,
                "now": now,
                "any": ANY,
                "quotas": [kind.value for kind in QUOTA_KINDS],
                "numbers": list(range(len(wanted))),
                "models": [place.model_id or ANY for place, _ in wanted],
                "keys": [place.api_key_id or ANY for place, _ in wanted],
                "kinds": [place.kind.value for place, _ in wanted],
                "starts": [start for _, start in wanted],
            },
        )
        return {wanted[number][0]: Use(used, pending) for number, used, pending in cursor.fetchall()}
