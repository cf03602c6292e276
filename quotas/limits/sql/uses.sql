-- Counters of quotas and budgets: what a scope has used of a period, and what its calls in progress reserve. A
-- counter begins at the first admission that a limit of its scope and kind applies to; from then on admission and
-- settlement keep it, whether its limit still exists or not. Whoever reads or changes the counters of a tenant
-- here holds the lock of its wallet, which is taken first.

-- What calls of one tenant, model and key change that were admitted on one day (UTC).
CREATE TYPE quotas_use_change AS (
  tenant_id uuid, model_id uuid, api_key_id uuid, day date,
  used_tokens bigint, used_nanos bigint, pending_tokens bigint, pending_nanos bigint
);

-- The quotas and budgets of these tenants under which calls with these models and keys can fall, each with the
-- counter of its period; used and pending are null where that does not exist yet. The zero UUID stands for all
-- models and all keys. Periods begin at midnight UTC.
CREATE FUNCTION quotas_counted_limits(p_tenants uuid[], p_models uuid[], p_keys uuid[], p_at timestamptz)
RETURNS TABLE (tenant_id uuid, model_id uuid, api_key_id uuid, kind text, is_money boolean, starts_at timestamptz,
               resets_at timestamptz, value bigint, used bigint, pending bigint)
LANGUAGE sql STABLE AS $$
  SELECT t.id, l.model_id, l.api_key_id, l.kind, p.is_money,
    p.starts_on AT TIME ZONE 'UTC', (p.starts_on + p.lasts) AT TIME ZONE 'UTC', l.value, u.used, u.pending
  FROM unnest(p_tenants) AS t(id)
  CROSS JOIN LATERAL quotas_effective_limits(t.id, p_at) l
  JOIN (VALUES
    ('TOKENS_DAY', false, date_trunc('day', p_at AT TIME ZONE 'UTC'), interval '1 day'),
    ('TOKENS_MONTH', false, date_trunc('month', p_at AT TIME ZONE 'UTC'), interval '1 month'),
    ('MONEY_DAY', true, date_trunc('day', p_at AT TIME ZONE 'UTC'), interval '1 day'),
    ('MONEY_MONTH', true, date_trunc('month', p_at AT TIME ZONE 'UTC'), interval '1 month')
  ) AS p(kind, is_money, starts_on, lasts) ON p.kind = l.kind
  LEFT JOIN quotas_limituse u ON u.tenant_id = t.id AND u.model_id = l.model_id AND u.api_key_id = l.api_key_id
    AND u.kind = l.kind AND u.period_start = p.starts_on::date
  WHERE l.kind IN ('TOKENS_DAY', 'TOKENS_MONTH', 'MONEY_DAY', 'MONEY_MONTH')
    AND (l.model_id = '00000000-0000-0000-0000-000000000000' OR l.model_id = ANY (p_models))
    AND (l.api_key_id = '00000000-0000-0000-0000-000000000000' OR l.api_key_id = ANY (p_keys))
$$;

-- Makes the counters that quotas_counted_limits misses: from the rollups and the open holds of the period.
CREATE FUNCTION quotas_open_limit_uses(p_tenants uuid[], p_models uuid[], p_keys uuid[], p_at timestamptz)
RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  c_any CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
  INSERT INTO quotas_limituse (tenant_id, model_id, api_key_id, kind, period_start, used, pending)
  SELECT l.tenant_id, l.model_id, l.api_key_id, l.kind, (l.starts_at AT TIME ZONE 'UTC')::date,
    (SELECT coalesce(sum(CASE WHEN l.is_money THEN o.charged_nanos ELSE o.prompt_tokens + o.completion_tokens END), 0)
     FROM quotas_usagerollup o
     WHERE o.tenant_id = l.tenant_id AND o.hour >= l.starts_at AND o.hour < l.resets_at
       AND l.model_id IN (o.model_id, c_any) AND l.api_key_id IN (o.api_key_id, c_any)),
    (SELECT coalesce(sum(CASE WHEN l.is_money THEN h.amount_nanos
                              ELSE q.prompt_bound_tokens + q.choices * q.output_cap_tokens::bigint END), 0)
     FROM quotas_hold h JOIN quotas_inferencerequest q ON q.id = h.request_id
     WHERE h.tenant_id = l.tenant_id AND h.state = 'PENDING'
       AND q.admitted_at >= l.starts_at AND q.admitted_at < l.resets_at
       AND l.model_id IN (q.model_id, c_any) AND l.api_key_id IN (q.api_key_id, c_any))
  FROM quotas_counted_limits(p_tenants, p_models, p_keys, p_at) l
  WHERE l.used IS NULL;
END $$;

-- Moves the counters that calls fall under, as far as they exist. Never fails because of a limit: what is over
-- its limit stays so, and a counter that somebody damaged is for the audit to find, not for calls to break on.
CREATE FUNCTION quotas_move_limit_uses(p_changes quotas_use_change[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE quotas_limituse u SET used = u.used + d.used, pending = greatest(0, u.pending + d.pending)
  FROM (
    SELECT c.tenant_id, s.model_id, s.api_key_id, p.kind, p.period_start,
      sum(CASE WHEN p.is_money THEN c.used_nanos ELSE c.used_tokens END)::bigint AS used,
      sum(CASE WHEN p.is_money THEN c.pending_nanos ELSE c.pending_tokens END)::bigint AS pending
    FROM (
      SELECT c.tenant_id, c.model_id, c.api_key_id, c.day, date_trunc('month', c.day::timestamp)::date AS month,
        sum(c.used_tokens) AS used_tokens, sum(c.used_nanos) AS used_nanos,
        sum(c.pending_tokens) AS pending_tokens, sum(c.pending_nanos) AS pending_nanos
      FROM unnest(p_changes) c GROUP BY c.tenant_id, c.model_id, c.api_key_id, c.day
    ) c
    CROSS JOIN LATERAL (VALUES
      (c.model_id, c.api_key_id),
      (c.model_id, '00000000-0000-0000-0000-000000000000'),
      ('00000000-0000-0000-0000-000000000000', c.api_key_id),
      ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000'::uuid)
    ) AS s(model_id, api_key_id)
    CROSS JOIN LATERAL (VALUES
      ('TOKENS_DAY', false, c.day), ('TOKENS_MONTH', false, c.month),
      ('MONEY_DAY', true, c.day), ('MONEY_MONTH', true, c.month)
    ) AS p(kind, is_money, period_start)
    GROUP BY c.tenant_id, s.model_id, s.api_key_id, p.kind, p.period_start
  ) d
  WHERE u.tenant_id = d.tenant_id AND u.model_id = d.model_id AND u.api_key_id = d.api_key_id AND u.kind = d.kind
    AND u.period_start = d.period_start;
END $$;
