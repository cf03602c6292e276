"""One day of calls, priced with a draft and with the price in force by the function that charges calls."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connections

from models_catalog.models import PriceVersion
from portal.kit.ids import partition_bound
from quotas.replay.result import Sums
from tenants.scope import scope_alias

# The newest revision of each call is the truth. Calls with the same facts in the same windows cost the same,
# so each distinct case is priced once. Windows begin and end with minutes, so the minute of a call says which
# one was open. A list price reaches who neither had a private price then nor has one now.
_DAY: Final = """
WITH used AS MATERIALIZED (
  SELECT DISTINCT ON (q.id) q.tenant_id, q.service_tier, date_trunc('minute', q.admitted_at) AS minute,
    v.tenant_id IS NOT NULL AS was_private, u.basis = 'NOTHING' AS is_free, u.prompt_tokens, u.cached_tokens,
    u.image_tokens, u.completion_tokens, u.reasoning_tokens, u.charged_nanos
  FROM quotas_inferencerequest q
  JOIN quotas_usagerecord u ON u.request_id = q.id AND u.request_id >= %(low)s AND u.request_id < %(high)s
  JOIN models_catalog_priceversion v ON v.id = q.price_version_id AND v.currency = %(currency)s
  WHERE q.id >= %(low)s AND q.id < %(high)s AND q.model_id = %(model)s
  ORDER BY q.id, u.revision DESC
), reached AS MATERIALIZED (
  SELECT t.tenant_id, t.today
  FROM (SELECT d.tenant_id, catalog_version_at(%(model)s, d.tenant_id, %(currency)s, %(priced_at)s) AS today
        FROM (SELECT DISTINCT tenant_id FROM used) d) t
  LEFT JOIN models_catalog_priceversion v ON v.id = t.today
  WHERE CASE WHEN %(tenant)s::uuid IS NULL THEN v.tenant_id IS NULL ELSE t.tenant_id = %(tenant)s::uuid END
), minutes AS MATERIALIZED (
  SELECT m.minute, r.today, catalog_window_at(%(draft)s, m.minute) AS draft_window,
    catalog_window_at(r.today, m.minute) AS today_window
  FROM (SELECT DISTINCT minute FROM used) m CROSS JOIN (SELECT DISTINCT today FROM reached) r
), cases AS MATERIALIZED (
  SELECT u.tenant_id, r.today, m.today_window, m.draft_window, u.service_tier, u.is_free, u.prompt_tokens,
    u.cached_tokens, u.image_tokens, u.completion_tokens, u.reasoning_tokens,
    count(*)::numeric AS requests, sum(u.charged_nanos) AS charged_nanos
  FROM used u
  JOIN reached r USING (tenant_id)
  JOIN minutes m ON m.minute = u.minute AND m.today IS NOT DISTINCT FROM r.today
  WHERE %(tenant)s::uuid IS NOT NULL OR NOT u.was_private
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
), priced AS (
  SELECT c.*,
    CASE WHEN c.is_free THEN 0 ELSE catalog_usage_cost(c.today, c.service_tier, c.today_window,
      c.prompt_tokens, c.cached_tokens, c.image_tokens, c.completion_tokens, c.reasoning_tokens)
    END AS today_nanos,
    CASE WHEN c.is_free THEN 0 ELSE catalog_usage_cost(%(draft)s, c.service_tier, c.draft_window,
      c.prompt_tokens, c.cached_tokens, c.image_tokens, c.completion_tokens, c.reasoning_tokens)
    END AS draft_nanos
  FROM cases c
)
SELECT tenant_id, sum(requests), sum(requests * prompt_tokens), sum(requests * cached_tokens),
  sum(requests * image_tokens), sum(requests * completion_tokens), sum(requests * reasoning_tokens),
  sum(charged_nanos), coalesce(sum(requests * today_nanos), 0), coalesce(sum(requests * draft_nanos), 0),
  coalesce(sum(requests) FILTER (WHERE draft_nanos IS NULL), 0),
  coalesce(sum(requests) FILTER (WHERE draft_nanos IS DISTINCT FROM today_nanos), 0)
FROM priced GROUP BY tenant_id
UNION ALL
SELECT NULL, 0, 0, 0, 0, 0, 0, coalesce(sum(charged_nanos), 0), 0, 0, 0, 0 FROM used
"""


def price_day(
    *, draft: PriceVersion, from_at: datetime, to_at: datetime, priced_at: datetime
) -> tuple[list[tuple[UUID, Sums]], int]:
    """Sums by organization of the calls whose ids are of [from_at, to_at), and what all calls of the model in
    the draft's currency were charged then, reached by the draft or not."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _DAY,
            {
                "low": partition_bound(from_at),
                "high": partition_bound(to_at),
                "draft": draft.id,
                "model": draft.model_id,
                "currency": draft.currency,
                "tenant": draft.tenant_id,
                "priced_at": priced_at,
            },
        )
        rows = cursor.fetchall()
    found: list[tuple[UUID, Sums]] = []
    all_charged_nanos = 0
    for tenant_id, *values in rows:
        sums = Sums(*(int(value) for value in values))
        if tenant_id is None:
            all_charged_nanos = sums.charged_nanos
        else:
            found.append((tenant_id, sums))
    return found, all_charged_nanos
