-- Admission: one statement for a batch of calls. It checks key, tenant, model, grant, price, ceiling, quotas,
-- budgets and money under the wallet's lock, and leaves a durable request, hold and first attempt for each
-- admitted call.
--
-- p_rows: [{request_id, attempt_id, tenant_id, api_key_id, digest, model_id, deployment_id, service_tier,
--   endpoint, is_stream, choices, prompt_bound_tokens, output_cap_tokens, max_cost_nanos, payload_sha256}]
--   with unique request ids; digests in hex; the cap per choice; max_cost_nanos null or missing is no ceiling.
-- p_block_ms: 0 never waits for a wallet (its rows answer BUSY); otherwise how long to wait for one.
-- Answers one row per request: ADMITTED, REFUSED with a reason, ALREADY_DONE (same payload), CONFLICT
-- (another payload) or BUSY. A refused row takes no room from the rows behind it.
-- A ceiling lowers the cap to the largest that cannot cost more; output_cap_tokens answers the cap that was priced
-- and must be sent. MAX_COST_TOO_LOW: not one token of output fits; hold_nanos is then what the prompt alone may
-- cost, and least_cost_nanos the lowest ceiling that would do.
-- QUOTA_EXCEEDED and BUDGET_EXCEEDED name the limit in the columns limit_…, of several the one that resets last;
-- the zero UUID stands for all models and all keys. fit_output_tokens is the largest cap per choice that money and
-- limits would have let pass.
CREATE FUNCTION quotas_admit(p_rows jsonb, p_lease_s int, p_block_ms int)
RETURNS TABLE (request_id uuid, verdict text, reason text, currency text, hold_nanos bigint,
               available_nanos bigint, pending_nanos bigint, fit_output_tokens bigint,
               limit_kind text, limit_model_id uuid, limit_api_key_id uuid, limit_value bigint, limit_used bigint,
               limit_pending bigint, limit_needed bigint, limit_resets_at timestamptz,
               output_cap_tokens bigint, least_cost_nanos bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  c_any CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
  v_locked uuid[];
  v_now timestamptz;
  v_day date;
  v_asked uuid[];
  v_first uuid;
  v_last uuid;
  r record;
  k record;
  v_has_known boolean;
  v_tenant uuid;
  v_available bigint;
  v_pending bigint;
  v_reason text;
  v_cap bigint;
  v_models uuid[];
  v_keys uuid[];
  v_counted uuid[];
  -- What was admitted: a request each, and beside it what its attempt and its hold need.
  v_call quotas_inferencerequest;
  v_calls quotas_inferencerequest[] := '{}';
  v_attempts uuid[] := '{}'; v_deployments uuid[] := '{}'; v_currencies text[] := '{}'; v_holds bigint[] := '{}';
  v_changes quotas_use_change[] := '{}';
  -- The limits that rows of the batch may fall under, one element of each array a limit, and where in the
  -- arrays those of the current tenant, model and key stand.
  l_tenants uuid[]; l_models uuid[]; l_keys uuid[]; l_kinds text[]; l_are_money boolean[];
  l_values bigint[]; l_used bigint[]; l_pending bigint[]; l_resets timestamptz[];
  l_are_counted boolean;
  v_places int[] := '{}';
  v_limited_tenant uuid;
  v_model uuid;
  v_key uuid;
  v_place int;
  v_hit int;
  v_room bigint;
  v_fits boolean;
  v_tokens bigint;
  v_token_room bigint;
  v_money_room bigint;
BEGIN
  PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
  v_locked := quotas_lock_wallets(p_rows, p_block_ms);
  v_now := clock_timestamp();
  v_day := (v_now AT TIME ZONE 'UTC')::date;
  -- Bounds of the ids let the planner leave out the other days' partitions, and so spares their locks.
  SELECT array_agg(x.request_id ORDER BY x.request_id), array_agg(DISTINCT x.model_id), array_agg(DISTINCT x.api_key_id)
  INTO v_asked, v_models, v_keys
  FROM jsonb_to_recordset(p_rows) AS x(request_id uuid, model_id uuid, api_key_id uuid);
  v_first := v_asked[1]; v_last := v_asked[cardinality(v_asked)];
  -- Once a batch, not a row. The first limit in this order that has no room is the one that a refusal names.
  LOOP
    SELECT array_agg(l.tenant_id), array_agg(l.model_id), array_agg(l.api_key_id), array_agg(l.kind),
      array_agg(l.is_money), array_agg(l.value), array_agg(l.used), array_agg(l.pending), array_agg(l.resets_at),
      bool_and(l.used IS NOT NULL)
    INTO l_tenants, l_models, l_keys, l_kinds, l_are_money, l_values, l_used, l_pending, l_resets, l_are_counted
    FROM (SELECT * FROM quotas_counted_limits(v_locked, v_models, v_keys, v_now)
          ORDER BY tenant_id, resets_at DESC, kind, model_id, api_key_id) l;
    EXIT WHEN l_are_counted IS NOT FALSE;
    PERFORM quotas_open_limit_uses(v_locked, v_models, v_keys, v_now);
  END LOOP;
  -- Counters are kept as long as they exist, also those whose limit was removed.
  v_counted := ARRAY(SELECT t.id FROM unnest(v_locked) t(id)
                     WHERE EXISTS (SELECT 1 FROM quotas_limituse u WHERE u.tenant_id = t.id));
  -- Only what reads partitions is planned anew each time, for the few that the bounds leave. All else keeps its
  -- plan: making one takes longer than a small batch.
  PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
  v_has_known := EXISTS (SELECT 1 FROM quotas_hold h WHERE h.request_id = ANY (v_asked)
                         AND h.request_id BETWEEN v_first AND v_last);
  PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);

  FOR r IN
    WITH asked AS MATERIALIZED (
      SELECT x.*, w.tenant_id AS wallet_tenant_id, w.currency AS wallet_currency,
        w.paid_nanos + w.granted_nanos + w.overdraft_nanos - w.pending_nanos AS available,
        w.pending_nanos AS pending, v.version_id, o.window_id
      FROM (
        SELECT * FROM ROWS FROM (jsonb_to_recordset(p_rows) AS (
          request_id uuid, attempt_id uuid, tenant_id uuid, api_key_id uuid, digest text, model_id uuid,
          deployment_id uuid, service_tier text, endpoint text, is_stream boolean, choices int, prompt_bound_tokens bigint,
          output_cap_tokens bigint, max_cost_nanos bigint, payload_sha256 text)) WITH ORDINALITY
      ) x
      LEFT JOIN quotas_wallet w ON w.tenant_id = x.tenant_id
      LEFT JOIN LATERAL catalog_versions_at(x.model_id, x.tenant_id, w.currency, v_now) v ON true
      LEFT JOIN LATERAL catalog_windows_at(v.version_id, v.time_zone, v_now) o ON true
    ), steps AS MATERIALIZED (
      -- Once for each price in the batch, of which there are few.
      SELECT v.*, s.* FROM (SELECT DISTINCT version_id, service_tier, window_id FROM asked) v
      CROSS JOIN LATERAL catalog_hold_steps(v.version_id, v.service_tier, v.window_id) s
    )
    SELECT x.*, t.state AS tenant_state,
      k.id AS key_id, k.digest AS key_digest, k.revoked_at, k.expires_at, k.restricts_models,
      m.state AS model_state, m.cancel_policy,
      EXISTS (SELECT 1 FROM models_catalog_modelgrant g
              WHERE g.tenant_id = x.tenant_id AND g.model_id = x.model_id AND g.ended_at IS NULL) AS is_granted,
      EXISTS (SELECT 1 FROM models_catalog_apikeymodel km
              WHERE km.api_key_id = x.api_key_id AND km.model_id = x.model_id) AS is_listed,
      EXISTS (SELECT 1 FROM models_catalog_deployment d
              WHERE d.id = x.deployment_id AND d.model_id = x.model_id) AS is_served,
      p.prompt_price, p.output_price, p.request_price
    FROM asked x
    LEFT JOIN tenants_tenant t ON t.id = x.tenant_id
    LEFT JOIN tenants_apikey k ON k.id = x.api_key_id AND k.tenant_id = x.tenant_id
    LEFT JOIN models_catalog_catalogmodel m ON m.id = x.model_id
    LEFT JOIN LATERAL (
      SELECT s.prompt_price, s.output_price, s.request_price FROM steps s
      WHERE s.version_id = x.version_id AND s.service_tier = x.service_tier
        AND s.window_id IS NOT DISTINCT FROM x.window_id AND s.from_tokens <= x.prompt_bound_tokens
      ORDER BY s.from_tokens DESC LIMIT 1
    ) p ON true
    ORDER BY x.tenant_id, x.ordinality
  LOOP
    request_id := r.request_id; reason := NULL; currency := r.wallet_currency; hold_nanos := NULL;
    available_nanos := NULL; pending_nanos := NULL; fit_output_tokens := NULL;
    limit_kind := NULL; limit_model_id := NULL; limit_api_key_id := NULL; limit_value := NULL; limit_used := NULL;
    limit_pending := NULL; limit_needed := NULL; limit_resets_at := NULL;
    output_cap_tokens := NULL; least_cost_nanos := NULL;
    IF r.wallet_tenant_id IS NOT NULL AND NOT coalesce(r.tenant_id = ANY (v_locked), false) THEN
      verdict := 'BUSY';
      RETURN NEXT; CONTINUE;
    END IF;
    IF r.tenant_id IS DISTINCT FROM v_tenant THEN
      v_tenant := r.tenant_id; v_available := r.available; v_pending := r.pending;
    END IF;
    IF v_has_known THEN
      PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
      SELECT q.payload_sha256, q.output_cap_tokens, h.amount_nanos, h.state INTO k
      FROM quotas_inferencerequest q JOIN quotas_hold h ON h.request_id = q.id
      WHERE q.id = r.request_id AND h.request_id = r.request_id;
      PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
      IF k.payload_sha256 IS NOT NULL THEN
        hold_nanos := k.amount_nanos; output_cap_tokens := k.output_cap_tokens; reason := k.state;
        verdict := CASE WHEN k.payload_sha256 = decode(r.payload_sha256, 'hex') THEN 'ALREADY_DONE' ELSE 'CONFLICT' END;
        RETURN NEXT; CONTINUE;
      END IF;
    END IF;
    v_cap := r.output_cap_tokens;
    v_reason := CASE
      WHEN r.key_id IS NULL OR r.key_digest IS DISTINCT FROM decode(r.digest, 'hex') THEN 'KEY_UNKNOWN'
      WHEN r.revoked_at <= v_now THEN 'KEY_REVOKED'
      WHEN r.expires_at <= v_now THEN 'KEY_EXPIRED'
      WHEN r.tenant_state IS DISTINCT FROM 'ACTIVE' OR r.wallet_tenant_id IS NULL THEN 'TENANT_SUSPENDED'
      WHEN r.model_state IS DISTINCT FROM 'ACTIVE' THEN 'MODEL_UNKNOWN'
      WHEN NOT r.is_granted THEN 'MODEL_NOT_ENABLED'
      WHEN r.restricts_models AND NOT r.is_listed THEN 'MODEL_NOT_ON_KEY'
      WHEN NOT r.is_served THEN 'NOT_DEPLOYED'
      WHEN r.prompt_price IS NULL OR r.output_price IS NULL THEN 'NO_PRICE'
    END;
    IF v_reason IS NULL AND r.max_cost_nanos IS NOT NULL THEN
      v_cap := quotas_cap_within(r.max_cost_nanos, r.prompt_bound_tokens, r.choices, r.output_cap_tokens,
                                  r.prompt_price, r.output_price, r.request_price);
      IF v_cap IS NULL THEN
        v_reason := 'MAX_COST_TOO_LOW';
        hold_nanos := catalog_hold_amount(r.prompt_bound_tokens, 0, r.prompt_price, r.output_price, r.request_price);
        least_cost_nanos := catalog_hold_amount(r.prompt_bound_tokens, r.choices * least(1, r.output_cap_tokens),
                                                r.prompt_price, r.output_price, r.request_price);
      END IF;
    END IF;
    IF v_reason IS NULL THEN
      hold_nanos := catalog_hold_amount(r.prompt_bound_tokens, r.choices * v_cap,
                                        r.prompt_price, r.output_price, r.request_price);
      available_nanos := v_available; pending_nanos := v_pending;
      v_tokens := r.prompt_bound_tokens + r.choices * v_cap;
      IF l_tenants IS NOT NULL
         AND (r.tenant_id, r.model_id, r.api_key_id) IS DISTINCT FROM (v_limited_tenant, v_model, v_key) THEN
        v_limited_tenant := r.tenant_id; v_model := r.model_id; v_key := r.api_key_id;
        v_places := ARRAY(
          SELECT l.place FROM unnest(l_tenants, l_models, l_keys) WITH ORDINALITY AS l(tenant, model, key, place)
          WHERE l.tenant = r.tenant_id AND l.model IN (r.model_id, c_any) AND l.key IN (r.api_key_id, c_any)
          ORDER BY l.place);
      END IF;
      v_hit := NULL; v_token_room := NULL; v_money_room := v_available;
      FOREACH v_place IN ARRAY v_places LOOP
        v_room := l_values[v_place] - l_used[v_place] - l_pending[v_place];
        IF l_are_money[v_place] THEN
          v_money_room := least(v_money_room, v_room);
          v_fits := hold_nanos <= v_room;
        ELSE
          v_token_room := least(v_token_room, v_room);
          v_fits := v_tokens <= v_room;
        END IF;
        IF v_hit IS NULL AND NOT v_fits THEN
          v_hit := v_place;
        END IF;
      END LOOP;
      IF v_hit IS NOT NULL THEN
        v_reason := CASE WHEN l_are_money[v_hit] THEN 'BUDGET_EXCEEDED' ELSE 'QUOTA_EXCEEDED' END;
        limit_kind := l_kinds[v_hit]; limit_model_id := l_models[v_hit]; limit_api_key_id := l_keys[v_hit];
        limit_value := l_values[v_hit]; limit_used := l_used[v_hit]; limit_pending := l_pending[v_hit];
        limit_needed := CASE WHEN l_are_money[v_hit] THEN hold_nanos ELSE v_tokens END;
        limit_resets_at := l_resets[v_hit];
      ELSIF hold_nanos > v_available THEN
        v_reason := 'INSUFFICIENT_FUNDS';
      END IF;
      IF v_reason IS NOT NULL THEN
        fit_output_tokens := greatest(0, least(
          v_cap,
          (v_token_room - r.prompt_bound_tokens) / r.choices,
          CASE WHEN r.output_price > 0 THEN div(
            (v_money_room - catalog_hold_amount(r.prompt_bound_tokens, 0, r.prompt_price, r.output_price, r.request_price))
            ::numeric * 1000000, r.output_price::numeric * r.choices)
          WHEN hold_nanos > v_money_room THEN 0 END))::bigint;
      END IF;
    END IF;
    IF v_reason IS NOT NULL THEN
      verdict := 'REFUSED'; reason := v_reason;
      RETURN NEXT; CONTINUE;
    END IF;
    v_available := v_available - hold_nanos; v_pending := v_pending + hold_nanos;
    FOREACH v_place IN ARRAY v_places LOOP
      l_pending[v_place] := l_pending[v_place] + CASE WHEN l_are_money[v_place] THEN hold_nanos ELSE v_tokens END;
    END LOOP;
    IF r.tenant_id = ANY (v_counted) THEN
      v_changes := array_append(v_changes,
        ROW(r.tenant_id, r.model_id, r.api_key_id, v_day, 0, 0, v_tokens, hold_nanos)::quotas_use_change);
    END IF;
    v_call.id := r.request_id; v_call.tenant_id := r.tenant_id; v_call.api_key_id := r.api_key_id;
    v_call.model_id := r.model_id; v_call.price_version_id := r.version_id; v_call.price_window_id := r.window_id;
    v_call.service_tier := r.service_tier; v_call.endpoint := r.endpoint; v_call.is_stream := r.is_stream;
    v_call.choices := r.choices; v_call.prompt_bound_tokens := r.prompt_bound_tokens; v_call.output_cap_tokens := v_cap;
    v_call.max_cost_nanos := r.max_cost_nanos; v_call.cancel_policy := r.cancel_policy;
    v_call.payload_sha256 := decode(r.payload_sha256, 'hex'); v_call.admitted_at := v_now;
    v_calls := array_append(v_calls, v_call);
    v_attempts := array_append(v_attempts, r.attempt_id); v_deployments := array_append(v_deployments, r.deployment_id);
    v_currencies := array_append(v_currencies, r.wallet_currency); v_holds := array_append(v_holds, hold_nanos);
    verdict := 'ADMITTED'; available_nanos := v_available; pending_nanos := v_pending; output_cap_tokens := v_cap;
    RETURN NEXT;
  END LOOP;
  IF cardinality(v_calls) = 0 THEN
    RETURN;
  END IF;
  IF cardinality(v_changes) > 0 THEN
    PERFORM quotas_move_limit_uses(v_changes);
  END IF;
  INSERT INTO quotas_inferencerequest SELECT * FROM unnest(v_calls);
  INSERT INTO quotas_attempt (id, request_id, tenant_id, deployment_id, ordinal, choice_index, started_at, wire_id)
  SELECT a.attempt_id, c.id, c.tenant_id, a.deployment_id, 1, 0, v_now, ''
  FROM unnest(v_calls) WITH ORDINALITY c
  JOIN unnest(v_attempts, v_deployments) WITH ORDINALITY AS a(attempt_id, deployment_id, ordinality) USING (ordinality);
  INSERT INTO quotas_hold (request_id, tenant_id, currency, amount_nanos, max_cost_nanos, state, lease_until,
    checkpoint_prompt_tokens, checkpoint_cached_tokens, checkpoint_completion_tokens, checkpoint_reasoning_tokens, resolved_by)
  SELECT c.id, c.tenant_id, a.currency, a.hold_nanos, c.max_cost_nanos, 'PENDING', v_now + make_interval(secs => p_lease_s),
    0, 0, 0, 0, ''
  FROM unnest(v_calls) WITH ORDINALITY c
  JOIN unnest(v_currencies, v_holds) WITH ORDINALITY AS a(currency, hold_nanos, ordinality) USING (ordinality);
END $$;
