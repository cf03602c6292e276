-- Everything that explains one charge, as one JSON value; no row when the organization has no such call.
-- Runs under the tenant's role (pages, management API), the operator's and the data plane's (GET /v1/requests/{id}),
-- of which only the first is behind row-level security: so every table that has a tenant is asked for this one's.
-- The ids are parameters of each part, which lets the planner leave out other days' partitions. {engine} is the
-- expression of an attempt's engine, {confirmed} of whether the backends' records agree with what was metered: not
-- every role may read either.
SELECT jsonb_build_object(
  'id', q.id, 'admitted_at', q.admitted_at,
  'model', jsonb_build_object('id', m.id, 'slug', m.slug, 'name', m.display_name),
  'key', jsonb_build_object('id', k.id, 'name', k.name, 'hint', k.secret_hint,
    'is_playground', k.purpose = 'PLAYGROUND'),
  'endpoint', q.endpoint, 'is_stream', q.is_stream, 'choices', q.choices,
  'prompt_bound_tokens', q.prompt_bound_tokens, 'output_cap_tokens', q.output_cap_tokens,
  'max_cost_nanos', q.max_cost_nanos, 'cancel_policy', q.cancel_policy, 'is_confirmed', {confirmed},
  'price', (
    SELECT jsonb_build_object('id', v.id, 'currency', v.currency, 'time_zone', v.time_zone,
      'active_from', v.active_from, 'active_to', v.active_to, 'is_private', v.tenant_id IS NOT NULL,
      'service_tier', q.service_tier,
      'window', (SELECT w.name FROM models_catalog_pricewindow w WHERE w.id = q.price_window_id))
    FROM models_catalog_priceversion v WHERE v.id = q.price_version_id),
  'hold', (
    SELECT jsonb_build_object('state', h.state, 'amount_nanos', h.amount_nanos, 'lease_until', h.lease_until,
      'resolved_at', h.resolved_at, 'resolved_by', h.resolved_by)
    FROM quotas_hold h WHERE h.request_id = %(request)s AND h.tenant_id = %(tenant)s),
  'revisions', coalesce((
    SELECT jsonb_agg(jsonb_build_object(
      'revision', u.revision, 'recorded_at', u.recorded_at, 'source', u.source, 'basis', u.basis,
      'provenance', u.provenance, 'cause', (
        SELECT x.cause FROM quotas_correction x
        WHERE x.request_id = u.request_id AND x.revision = u.revision AND x.tenant_id = u.tenant_id),
      'prompt_tokens', u.prompt_tokens, 'cached_tokens', u.cached_tokens,
      'image_tokens', u.image_tokens, 'completion_tokens', u.completion_tokens,
      'reasoning_tokens', u.reasoning_tokens, 'billed', u.billed, 'cost_nanos', u.cost_nanos,
      'charged_nanos', u.charged_nanos, 'granted_nanos', u.granted_nanos,
      'receivable_nanos', u.receivable_nanos, 'overrun_nanos', u.overrun_nanos, 'waived_nanos', u.waived_nanos,
      -- By the function that priced the call. Where nothing was delivered nothing is charged, not even a price
      -- by the request.
      'lines', coalesce((
        SELECT jsonb_agg(jsonb_build_object(
          'token_class', c.token_class, 'units', c.units, 'price_nanos_per_million', c.price_nanos_per_million,
          'amount_nanos', c.amount_nanos, 'line_id', l.id, 'line_class', l.token_class, 'window', w.name,
          'input_from_tokens', l.input_from_tokens, 'input_to_tokens', l.input_to_tokens,
          'is_billed', u.billed = 'DELIVERED'
            OR (u.billed = 'INPUT' AND c.token_class NOT IN ('output', 'reasoning')))
          ORDER BY array_position(
            ARRAY['input', 'cached_input', 'image', 'output', 'reasoning', 'request'], c.token_class))
        FROM catalog_usage_lines(q.price_version_id, q.service_tier, q.price_window_id, u.prompt_tokens,
          u.cached_tokens, u.image_tokens, u.completion_tokens, u.reasoning_tokens) c
        JOIN models_catalog_priceline l ON l.id = c.line_id
        LEFT JOIN models_catalog_pricewindow w ON w.id = l.window_id
        WHERE u.basis <> 'NOTHING'), '[]'),
      'transfer', (
        SELECT jsonb_build_object('id', t.id, 'posted_at', t.posted_at, 'amounts', coalesce((
          SELECT jsonb_agg(jsonb_build_array(a.kind, e.amount_nanos) ORDER BY a.kind)
          FROM quotas_ledgerentry e JOIN quotas_ledgeraccount a ON a.id = e.account_id
          WHERE e.transfer_id = t.id AND e.tenant_id = %(tenant)s), '[]'))
        FROM quotas_ledgertransfer t WHERE t.id = u.transfer_id AND t.tenant_id = %(tenant)s))
      ORDER BY u.revision)
    FROM quotas_usagerecord u WHERE u.request_id = %(request)s AND u.tenant_id = %(tenant)s), '[]'),
  'attempts', coalesce((
    SELECT jsonb_agg(jsonb_build_object(
      'id', a.id, 'choice_index', a.choice_index, 'ordinal', a.ordinal, 'deployment_id', a.deployment_id,
      'engine', {engine},
      'offset_ms', greatest(0, floor(extract(epoch FROM a.started_at - q.admitted_at) * 1000)::bigint),
      'duration_ms', a.duration_ms, 'ttft_ms', a.ttft_ms,
      'outcome', a.outcome, 'http_status', a.http_status, 'prompt_tokens', a.prompt_tokens,
      'completion_tokens', a.completion_tokens)
      ORDER BY a.started_at, a.choice_index, a.ordinal)
    FROM quotas_attempt a WHERE a.request_id = %(request)s AND a.tenant_id = %(tenant)s
      AND a.id >= %(first_attempt)s AND a.id < %(end_attempt)s), '[]'),
  -- What bounded the call, as it stood when it was admitted.
  'limits', coalesce((
    SELECT jsonb_agg(jsonb_build_object('kind', l.kind, 'value', l.value, 'source', l.source,
      'model_id', nullif(l.model_id, '00000000-0000-0000-0000-000000000000'),
      'api_key_id', nullif(l.api_key_id, '00000000-0000-0000-0000-000000000000'))
      ORDER BY l.kind, l.model_id, l.api_key_id)
    FROM quotas_effective_limits(%(tenant)s, q.admitted_at) l
    WHERE l.model_id IN (q.model_id, '00000000-0000-0000-0000-000000000000')
      AND l.api_key_id IN (q.api_key_id, '00000000-0000-0000-0000-000000000000')), '[]')
)::text
FROM quotas_inferencerequest q
JOIN models_catalog_catalogmodel m ON m.id = q.model_id
JOIN tenants_apikey k ON k.id = q.api_key_id AND k.tenant_id = q.tenant_id
WHERE q.id = %(request)s AND q.tenant_id = %(tenant)s
