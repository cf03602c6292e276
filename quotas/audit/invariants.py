"""The invariants as queries. Each answers (what, id) for whatever breaks it, and nothing when it holds.

`what` is a name of portal.kit.ids.PREFIXES, so that the id can be shown as people know it. All of them
scan and aggregate whole tables; none looks at one row at a time.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Invariant:
    """violations_sql: a query of two columns, what and id."""

    code: str
    title: str
    violations_sql: str


_TRANSFERS_BALANCE: Final = """
SELECT 'transfer', transfer_id FROM quotas_ledgerentry
GROUP BY transfer_id, currency HAVING sum(amount_nanos) <> 0
"""

_STORED_BALANCES: Final = """
SELECT 'organization', coalesce(w.tenant_id, s.tenant_id)
FROM quotas_wallet w
FULL JOIN (
  SELECT a.tenant_id, a.currency,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'TOPPED_UP'), 0) AS paid,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'GRANTED'), 0) AS granted,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'RECEIVABLE'), 0) AS receivable
  FROM (SELECT account_id, sum(amount_nanos) AS amount_nanos FROM quotas_ledgerentry GROUP BY account_id) e
  JOIN quotas_ledgeraccount a ON a.id = e.account_id
  WHERE a.tenant_id IS NOT NULL
  GROUP BY a.tenant_id, a.currency
) s ON s.tenant_id = w.tenant_id AND s.currency = w.currency
WHERE w.tenant_id IS NULL
  OR w.paid_nanos <> coalesce(s.paid, 0)
  OR w.granted_nanos <> coalesce(s.granted, 0)
  OR w.receivable_nanos <> coalesce(s.receivable, 0)
"""

_PENDING: Final = """
SELECT 'organization', coalesce(w.tenant_id, h.tenant_id)
FROM quotas_wallet w
FULL JOIN (
  SELECT tenant_id, sum(amount_nanos) AS amount_nanos FROM quotas_hold
  WHERE state = 'PENDING' GROUP BY tenant_id
) h ON h.tenant_id = w.tenant_id
WHERE w.tenant_id IS NULL OR w.pending_nanos <> coalesce(h.amount_nanos, 0)
"""

# A hold's state says who resolved it and which usage may stand beside it: the gateway's post is one
# record of the gateway, its void is none; the sweeper's expiry is a first record of the sweeper and its
# void none, and each may be followed by one late record of the gateway. Whatever stands may be followed by
# corrections (of source FEED), each with its cause.
_HOLDS_RESOLVED_ONCE: Final = """
SELECT 'request', h.request_id
FROM quotas_hold h
LEFT JOIN (
  SELECT request_id, count(*) FILTER (WHERE source = 'GATEWAY') AS gateway,
    count(*) FILTER (WHERE source = 'SWEEPER') AS sweeper,
    min(revision) FILTER (WHERE source = 'SWEEPER') AS swept_at,
    min(revision) FILTER (WHERE source = 'GATEWAY') AS settled_at
  FROM quotas_usagerecord GROUP BY request_id
) u ON u.request_id = h.request_id
WHERE (h.state = 'PENDING') <> (h.resolved_at IS NULL)
  OR NOT coalesce(CASE h.state || ' ' || h.resolved_by
    WHEN 'PENDING ' THEN u.request_id IS NULL
    WHEN 'POSTED GATEWAY' THEN u.gateway = 1 AND u.sweeper = 0 AND u.settled_at = 1
    WHEN 'VOIDED GATEWAY' THEN u.request_id IS NULL OR (u.sweeper = 0 AND u.gateway = 0)
    WHEN 'EXPIRED SWEEPER' THEN u.sweeper = 1 AND u.swept_at = 1 AND u.gateway <= 1
    WHEN 'VOIDED SWEEPER' THEN u.request_id IS NULL OR (u.sweeper = 0 AND u.gateway <= 1)
  END, false)
UNION ALL
SELECT 'request', request_id FROM quotas_ledgertransfer WHERE revision = 1
GROUP BY request_id HAVING count(*) > 1
UNION ALL
SELECT 'request', coalesce(u.request_id, c.request_id)
FROM (SELECT request_id, revision FROM quotas_usagerecord WHERE source = 'FEED') u
FULL JOIN quotas_correction c ON c.request_id = u.request_id AND c.revision = u.revision
WHERE u.request_id IS NULL OR c.request_id IS NULL
"""

_NEVER_OVERDRAWN: Final = """
SELECT 'organization', tenant_id FROM quotas_wallet
WHERE paid_nanos + granted_nanos - pending_nanos < -overdraft_nanos
  OR granted_nanos < 0 OR pending_nanos < 0 OR overdraft_nanos < 0 OR receivable_nanos > 0
"""

# Calls with the same facts and the same price cost the same, so each distinct case is priced once.
_USAGE_PRICED: Final = """
WITH newest AS MATERIALIZED (
  SELECT u.*, q.price_version_id, q.service_tier, h.amount_nanos AS hold_nanos,
    q.max_cost_nanos AS ceiling_nanos, h.max_cost_nanos AS held_ceiling_nanos,
    coalesce(q.price_window_id, '00000000-0000-0000-0000-000000000000') AS window_key
  FROM (SELECT DISTINCT ON (request_id) * FROM quotas_usagerecord ORDER BY request_id, revision DESC) u
  LEFT JOIN quotas_inferencerequest q ON q.id = u.request_id
  LEFT JOIN quotas_hold h ON h.request_id = u.request_id
), priced AS (
  SELECT c.*, catalog_usage_cost(price_version_id, service_tier,
    nullif(window_key, '00000000-0000-0000-0000-000000000000'),
    prompt_tokens, cached_tokens, image_tokens, completion_tokens, reasoning_tokens) AS price_nanos,
    quotas_billed_cost(billed, price_version_id, service_tier,
      nullif(window_key, '00000000-0000-0000-0000-000000000000'),
      prompt_tokens, cached_tokens, image_tokens, completion_tokens, reasoning_tokens) AS due_nanos
  FROM (
    SELECT DISTINCT price_version_id, service_tier, window_key, billed, prompt_tokens, cached_tokens,
      image_tokens, completion_tokens, reasoning_tokens
    FROM newest WHERE basis <> 'NOTHING'
  ) c
), posted AS (
  SELECT t.request_id,
    coalesce(-sum(e.amount_nanos) FILTER (WHERE a.tenant_id IS NOT NULL), 0) AS charged,
    coalesce(-sum(e.amount_nanos) FILTER (WHERE a.kind = 'GRANTED'), 0) AS granted,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'GRANTED_USAGE'), 0) AS granted_usage,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'REVENUE'), 0) AS revenue,
    coalesce(-sum(e.amount_nanos) FILTER (WHERE a.kind = 'OVERRUN_EXPENSE'), 0) AS overrun,
    coalesce(-sum(e.amount_nanos) FILTER (WHERE a.kind = 'WAIVED_EXPENSE'), 0) AS waived,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'UNBILLED_USAGE'), 0) AS unbilled
  FROM quotas_ledgertransfer t
  JOIN quotas_ledgerentry e ON e.transfer_id = t.id
  JOIN quotas_ledgeraccount a ON a.id = e.account_id
  WHERE t.kind = 'USAGE'
  GROUP BY t.request_id
)
SELECT 'request', coalesce(n.request_id, t.request_id)
FROM newest n
LEFT JOIN priced p USING (price_version_id, service_tier, window_key, billed, prompt_tokens, cached_tokens,
  image_tokens, completion_tokens, reasoning_tokens)
FULL JOIN posted t ON t.request_id = n.request_id
WHERE n.request_id IS NULL
  OR n.cost_nanos IS DISTINCT FROM (CASE WHEN n.basis = 'NOTHING' THEN 0 ELSE p.price_nanos END)
  OR n.charged_nanos IS DISTINCT FROM
    (CASE WHEN n.basis = 'NOTHING' THEN 0 ELSE least(p.due_nanos, n.hold_nanos) END)
  OR n.overrun_nanos IS DISTINCT FROM
    (CASE WHEN n.basis = 'NOTHING' THEN 0 ELSE p.due_nanos - n.charged_nanos END)
  OR n.waived_nanos <> n.cost_nanos - n.charged_nanos - n.overrun_nanos
  OR n.max_cost_nanos IS DISTINCT FROM n.ceiling_nanos
  OR n.max_cost_nanos IS DISTINCT FROM n.held_ceiling_nanos
  OR n.charged_nanos <> coalesce(t.charged, 0)
  OR n.granted_nanos <> coalesce(t.granted, 0)
  OR coalesce(t.granted_usage, 0) <> coalesce(t.granted, 0)
  OR coalesce(t.revenue, 0) <> coalesce(t.charged - t.granted, 0)
  OR n.overrun_nanos <> coalesce(t.overrun, 0)
  OR n.waived_nanos <> coalesce(t.waived, 0)
  OR coalesce(t.unbilled, 0) <> coalesce(t.overrun + t.waived, 0)
"""

# A call broke off when not every choice has a completed attempt; then, and only then, its policy applies. Of
# a lost one the backend's record, or an operator, may have said that it was whole.
_WAIVED_BY_POLICY: Final = """
SELECT 'request', u.request_id
FROM (SELECT DISTINCT ON (request_id) request_id, billed, basis, source FROM quotas_usagerecord
      ORDER BY request_id, revision DESC) u
JOIN quotas_inferencerequest q ON q.id = u.request_id
LEFT JOIN (
  SELECT request_id, count(*) FILTER (WHERE outcome = 'COMPLETED') AS completed,
    count(*) FILTER (WHERE outcome = 'LOST') AS lost
  FROM quotas_attempt GROUP BY request_id
) a ON a.request_id = u.request_id
WHERE NOT (u.source = 'FEED' AND u.billed = 'DELIVERED' AND coalesce(a.lost, 0) > 0)
  AND u.billed <> CASE WHEN u.basis <> 'NOTHING' AND coalesce(a.completed, 0) < q.choices
                       THEN q.cancel_policy ELSE 'DELIVERED' END
"""

# What a retry could have doubled: transfers (their id is their request and revision), the gateway's
# record, revisions, holds and attempts.
_RETRIES: Final = """
SELECT 'transfer', coalesce(t.id, u.transfer_id)
FROM (SELECT * FROM quotas_ledgertransfer WHERE kind = 'USAGE') t
FULL JOIN (SELECT * FROM quotas_usagerecord WHERE transfer_id IS NOT NULL) u ON u.transfer_id = t.id
WHERE t.id IS NULL OR u.transfer_id IS NULL
  OR t.request_id <> u.request_id OR t.revision <> u.revision
  OR t.id <> quotas_transfer_id('USAGE', t.request_id || ':' || t.revision)
UNION ALL
SELECT 'request', request_id FROM quotas_usagerecord
GROUP BY request_id
HAVING count(*) FILTER (WHERE source = 'GATEWAY') > 1 OR min(revision) <> 1 OR max(revision) <> count(*)
UNION ALL
SELECT 'request', q.id FROM quotas_inferencerequest q
LEFT JOIN quotas_hold h ON h.request_id = q.id
LEFT JOIN (SELECT DISTINCT request_id FROM quotas_attempt) a ON a.request_id = q.id
WHERE h.request_id IS NULL OR a.request_id IS NULL
"""

_PAYLOADS: Final = """
SELECT 'transfer', t.id
FROM quotas_ledgertransfer t
LEFT JOIN (
  SELECT e.transfer_id, string_agg(a.kind || '=' || e.amount_nanos, ',' ORDER BY a.kind COLLATE "C") AS legs
  FROM quotas_ledgerentry e JOIN quotas_ledgeraccount a ON a.id = e.account_id
  GROUP BY e.transfer_id
) l ON l.transfer_id = t.id
WHERE l.legs IS NULL OR t.payload_sha256 IS DISTINCT FROM sha256(convert_to(
  quotas_payload_text(t.kind, t.tenant_id, t.currency, t.request_id, t.revision::int, l.legs), 'UTF8'))
"""

_ROLLUPS: Final = """
SELECT 'organization', coalesce(r.tenant_id, s.tenant_id)
FROM quotas_usagerollup r
FULL JOIN (
  SELECT q.tenant_id, date_trunc('hour', q.admitted_at, 'UTC') AS hour, q.model_id, q.api_key_id,
    count(*) AS requests, sum(u.prompt_tokens) AS prompt_tokens, sum(u.cached_tokens) AS cached_tokens,
    sum(u.completion_tokens) AS completion_tokens, sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_nanos) AS cost_nanos, sum(u.charged_nanos) AS charged_nanos
  FROM (SELECT DISTINCT ON (request_id) * FROM quotas_usagerecord ORDER BY request_id, revision DESC) u
  JOIN quotas_inferencerequest q ON q.id = u.request_id
  GROUP BY 1, 2, 3, 4
) s ON s.tenant_id = r.tenant_id AND s.hour = r.hour AND s.model_id = r.model_id
  AND s.api_key_id = r.api_key_id
WHERE r.tenant_id IS NULL OR s.tenant_id IS NULL
  OR (r.requests, r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.reasoning_tokens, r.cost_nanos,
      r.charged_nanos)
     <> (s.requests, s.prompt_tokens, s.cached_tokens, s.completion_tokens, s.reasoning_tokens, s.cost_nanos,
         s.charged_nanos)
"""

# What the calls of each day, model and key come to, as the sums of every scope and period they fall in. The
# zero UUID stands for all models and all keys.
_BY_SCOPE_AND_PERIOD: Final = """
SELECT c.tenant_id, s.model_id, s.api_key_id, p.kind, p.period_start,
  sum(CASE WHEN p.is_money THEN c.nanos ELSE c.tokens END) AS amount
FROM calls c
CROSS JOIN LATERAL (VALUES
  (c.model_id, c.api_key_id),
  (c.model_id, '00000000-0000-0000-0000-000000000000'),
  ('00000000-0000-0000-0000-000000000000', c.api_key_id),
  ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000'::uuid)
) AS s(model_id, api_key_id)
CROSS JOIN LATERAL (VALUES
  ('TOKENS_DAY', false, c.day), ('TOKENS_MONTH', false, date_trunc('month', c.day::timestamp)::date),
  ('MONEY_DAY', true, c.day), ('MONEY_MONTH', true, date_trunc('month', c.day::timestamp)::date)
) AS p(kind, is_money, period_start)
GROUP BY 1, 2, 3, 4, 5
"""

_USED: Final = f"""
WITH calls AS (
  SELECT tenant_id, model_id, api_key_id, (hour AT TIME ZONE 'UTC')::date AS day,
    sum(prompt_tokens + completion_tokens) AS tokens, sum(charged_nanos) AS nanos
  FROM quotas_usagerollup WHERE tenant_id IN (SELECT tenant_id FROM quotas_limituse)
  GROUP BY 1, 2, 3, 4
), sums AS ({_BY_SCOPE_AND_PERIOD})
SELECT 'organization', u.tenant_id
FROM quotas_limituse u
LEFT JOIN sums s USING (tenant_id, model_id, api_key_id, kind, period_start)
WHERE u.used <> coalesce(s.amount, 0)
"""  # noqa: S608

_RESERVED: Final = f"""
WITH calls AS (
  SELECT q.tenant_id, q.model_id, q.api_key_id, (q.admitted_at AT TIME ZONE 'UTC')::date AS day,
    sum(q.prompt_bound_tokens + q.choices * q.output_cap_tokens::bigint) AS tokens,
    sum(h.amount_nanos) AS nanos
  FROM quotas_hold h JOIN quotas_inferencerequest q ON q.id = h.request_id
  WHERE h.state = 'PENDING'
  GROUP BY 1, 2, 3, 4
), sums AS ({_BY_SCOPE_AND_PERIOD})
SELECT 'organization', u.tenant_id
FROM quotas_limituse u
LEFT JOIN sums s USING (tenant_id, model_id, api_key_id, kind, period_start)
WHERE u.pending <> coalesce(s.amount, 0)
"""  # noqa: S608

# Hours of the fleet. The database refuses sums that do not add up; that a pool cost what its versions say is
# checked for the versions that were there when the hour was allocated: later ones are for the next run.
_HOURS_ADD_UP: Final = """
SELECT 'pool', p.pool_id
FROM quotas_poolhour p
LEFT JOIN (
  SELECT hour, pool_id, sum(cost_nanos) AS cost_nanos FROM quotas_deploymenthour GROUP BY hour, pool_id
) d ON d.hour = p.hour AND d.pool_id = p.pool_id
WHERE p.cost_nanos <> p.unreserved_nanos + coalesce(d.cost_nanos, 0)
UNION ALL
SELECT 'deployment', d.deployment_id
FROM quotas_deploymenthour d
LEFT JOIN (
  SELECT hour, deployment_id, sum(cost_nanos) AS cost_nanos, sum(weighted) AS weighted
  FROM quotas_businesshour GROUP BY hour, deployment_id
) b ON b.hour = d.hour AND b.deployment_id = d.deployment_id
WHERE d.cost_nanos <> d.idle_nanos + coalesce(b.cost_nanos, 0) OR d.weighted <> coalesce(b.weighted, 0)
UNION ALL
SELECT 'pool', coalesce(p.pool_id, v.pool_id)
FROM quotas_poolhour p
FULL JOIN (
  SELECT a.hour, v.pool_id, sum(catalog_pool_cost_nanos(v.id, extract(epoch FROM
    least(v.active_to, a.covered_until) - greatest(v.active_from, a.hour))::int)) AS cost_nanos
  FROM quotas_allocatedhour a
  JOIN models_catalog_poolcostversion v ON v.active_from < a.covered_until AND v.created_at < a.allocated_at
    AND (v.active_to IS NULL OR v.active_to > greatest(v.active_from, a.hour))
  GROUP BY a.hour, v.pool_id
) v ON v.hour = p.hour AND v.pool_id = p.pool_id
WHERE coalesce(p.cost_nanos, 0) <> coalesce(v.cost_nanos, 0)
"""

# What backends served beyond the bill stands in the ledger as it does at the discrepancies that say so.
_SURPLUS: Final = """
SELECT 'currency', coalesce(d.currency, t.currency)
FROM (
  SELECT w.currency, sum(x.overrun_nanos) AS nanos FROM quotas_discrepancy x
  JOIN quotas_wallet w ON w.tenant_id = x.tenant_id GROUP BY w.currency
) d
FULL JOIN (
  SELECT e.currency, -sum(e.amount_nanos) AS nanos FROM quotas_ledgertransfer t
  JOIN quotas_ledgerentry e ON e.transfer_id = t.id
  JOIN quotas_ledgeraccount a ON a.id = e.account_id AND a.kind = 'OVERRUN_EXPENSE'
  WHERE t.kind = 'SURPLUS' GROUP BY e.currency
) t ON t.currency = d.currency
WHERE coalesce(d.nanos, 0) <> coalesce(t.nanos, 0)
"""

INVARIANTS: Final = (
    Invariant("I1", "entries sum to zero per transfer and currency", _TRANSFERS_BALANCE),
    Invariant("I2", "stored balances are the sums of their entries", _STORED_BALANCES),
    Invariant("I3", "pending is the sum of open holds", _PENDING),
    Invariant("I4", "a hold is resolved at most once", _HOLDS_RESOLVED_ONCE),
    Invariant("I5", "available never falls below the overdraft", _NEVER_OVERDRAWN),
    Invariant("I6", "posted usage is the price of the latest facts", _USAGE_PRICED),
    Invariant("I10", "repeated calls and settlements post once", _RETRIES),
    Invariant("I11", "every transfer hashes to its stored payload", _PAYLOADS),
    Invariant("I12", "rollups are the sums of usage records", _ROLLUPS),
    Invariant("I14", "used quotas and budgets are the sums of rollups", _USED),
    Invariant("I15", "reserved quotas and budgets are the sums of open holds", _RESERVED),
    Invariant("I16", "allocated and idle are the cost of every pool-hour", _HOURS_ADD_UP),
    Invariant("I19", "what backends served beyond the bill is posted as such", _SURPLUS),
    Invariant("I17", "calls that broke off are billed by their policy", _WAIVED_BY_POLICY),
)
