-- What an organization has at this moment, what it spent, and how its budgets stand for one key. Amounts in
-- nano-units; days and months are those of UTC. No row when there is no such wallet.
SELECT jsonb_build_object(
  'at', %(now)s::timestamptz, 'currency', w.currency,
  'paid_nanos', w.paid_nanos, 'granted_nanos', w.granted_nanos, 'owed_nanos', -w.receivable_nanos,
  'pending_nanos', w.pending_nanos, 'overdraft_nanos', w.overdraft_nanos,
  'spent_today_nanos', s.today, 'spent_month_nanos', s.month,
  'budgets', coalesce((
    SELECT jsonb_agg(jsonb_build_object('kind', l.kind, 'model', m.slug,
      'api_key_id', nullif(l.api_key_id, '00000000-0000-0000-0000-000000000000'), 'value_nanos', l.value,
      -- A counter begins with the first call under its limit; until then the sums say the same.
      'used_nanos', coalesce(l.used, (
        SELECT coalesce(sum(o.charged_nanos), 0)::bigint FROM quotas_usagerollup o
        WHERE o.tenant_id = w.tenant_id AND o.hour >= l.starts_at AND o.hour < l.resets_at
          AND l.model_id IN (o.model_id, '00000000-0000-0000-0000-000000000000')
          AND l.api_key_id IN (o.api_key_id, '00000000-0000-0000-0000-000000000000'))),
      'pending_nanos', coalesce(l.pending, 0), 'resets_at', l.resets_at)
      ORDER BY l.kind, m.slug NULLS FIRST, l.api_key_id)
    FROM quotas_counted_limits(ARRAY[w.tenant_id], ARRAY(SELECT id FROM models_catalog_catalogmodel),
      ARRAY[%(key)s::uuid], %(now)s) l
    LEFT JOIN models_catalog_catalogmodel m ON m.id = l.model_id
    WHERE l.is_money), '[]')
)::text
FROM quotas_wallet w
CROSS JOIN LATERAL (
  SELECT coalesce(sum(o.charged_nanos), 0)::bigint AS month,
    coalesce(sum(o.charged_nanos) FILTER (WHERE o.hour >= date_trunc('day', %(now)s::timestamptz, 'UTC')), 0)::bigint
      AS today
  FROM quotas_usagerollup o
  WHERE o.tenant_id = w.tenant_id AND o.hour >= date_trunc('month', %(now)s::timestamptz, 'UTC')) s
WHERE w.tenant_id = %(tenant)s
