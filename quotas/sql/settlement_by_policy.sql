-- Settlement: one statement for a batch of calls that have ended.
--
-- p_rows: [{request_id, tenant_id, source, prompt_tokens, cached_tokens, image_tokens, completion_tokens,
--   reasoning_tokens, basis, provenance, payload_sha256, attempts: [{id, outcome, http_status, ttft_ms,
--   duration_ms, wire_id, prompt_tokens, completion_tokens}]}] with unique request ids.
--   basis NOTHING releases the hold and charges nothing. Rows of source SWEEPER carry no counts: the
--   hold's own checkpoint is taken, and only once its lease is over.
-- Answers one row per request: SETTLED, ALREADY_DONE, CONFLICT, NOT_EXPIRED, UNKNOWN or BUSY.
-- A settlement that comes after the sweeper's is a new revision and posts the difference only.
-- The counters of quotas and budgets follow, as far as they exist; no limit refuses a settlement.
-- A call breaks off when not all of its choices have a completed attempt. What is billed of it is what its cancel
-- policy says, as frozen at admission; the rest of what was delivered is waived: our expense, at list price.
CREATE OR REPLACE FUNCTION quotas_settle(p_rows jsonb, p_block_ms int)
RETURNS TABLE (request_id uuid, verdict text, revision int, charged_nanos bigint, overrun_nanos bigint, is_estimate boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_locked uuid[];
  v_now timestamptz;
  v_asked uuid[];
  v_tenants int;
  v_busy uuid[] := '{}';
  v_held quotas_hold[];
  v_calls quotas_inferencerequest[];
  v_first uuid;
  v_last uuid;
  v_first_attempt uuid;
  v_last_attempt uuid;
  r record;
  -- What is known of a call so far: its newest revision, and zeros when there is none.
  u_revision int; u_known int; u_has_gateway boolean; u_is_same boolean;
  u_charged bigint; u_granted bigint; u_owed bigint; u_overrun bigint; u_waived bigint; u_cost bigint;
  u_prompt bigint; u_cached bigint; u_completion bigint; u_reasoning bigint;
  v_tenant uuid;
  v_paid bigint; v_granted bigint; v_owed bigint; v_pending bigint; v_overdraft bigint;
  v_cost bigint; v_delta bigint; v_free bigint; v_taken bigint;
  d_granted bigint; d_owed bigint; d_paid bigint; d_overrun bigint; d_waived bigint;
  v_billed text; v_due bigint;
  v_transfer uuid;
  c_sides CONSTANT text[] := '{TOPPED_UP,GRANTED,RECEIVABLE,REVENUE,GRANTED_USAGE,OVERRUN_EXPENSE,WAIVED_EXPENSE,UNBILLED_USAGE}';
  v_side text;
  v_leg quotas_leg;
  v_legs quotas_leg[] := '{}';
  v_ends jsonb[] := '{}';
  v_resolved uuid[] := '{}';
  v_states text[] := '{}';
  v_sources text[] := '{}';
  v_usage quotas_usagerecord;
  v_usages quotas_usagerecord[] := '{}';
  v_sum quotas_usagerollup;
  v_sums quotas_usagerollup[] := '{}';
  v_counted uuid[];
  v_keys uuid[] := '{}';
  v_changes quotas_use_change[] := '{}';
BEGIN
  PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
  v_locked := quotas_lock_wallets(p_rows, p_block_ms);
  v_counted := ARRAY(SELECT t.id FROM unnest(v_locked) t(id)
                     WHERE EXISTS (SELECT 1 FROM quotas_limituse u WHERE u.tenant_id = t.id));
  SELECT array_agg(x.request_id ORDER BY x.request_id), count(DISTINCT x.tenant_id) INTO v_asked, v_tenants
  FROM jsonb_to_recordset(p_rows) AS x(request_id uuid, tenant_id uuid);
  v_first := v_asked[1]; v_last := v_asked[cardinality(v_asked)];
  -- Only what reads partitions is planned anew each time: bounds of the ids let the planner leave out the other
  -- days', and so spare their locks. All else keeps its plan: making one takes longer than a small batch.
  PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
  -- Checkpoints touch holds without the wallet's lock, so the holds are locked too, in id order.
  SELECT array_agg(l.hold), array_agg(l.call) INTO v_held, v_calls
  FROM (SELECT h AS hold, q AS call
        FROM quotas_hold h JOIN quotas_inferencerequest q ON q.id = h.request_id AND q.tenant_id = h.tenant_id
        WHERE h.request_id = ANY (v_asked) AND h.request_id BETWEEN v_first AND v_last
          AND q.id BETWEEN v_first AND v_last AND h.tenant_id = ANY (v_locked)
        ORDER BY h.request_id FOR NO KEY UPDATE OF h) l;
  IF v_tenants > coalesce(cardinality(v_locked), 0) THEN
    -- Those of tenants whose wallet is taken are not touched, but a call that is none is said to be unknown.
    v_busy := ARRAY(SELECT h.request_id FROM quotas_hold h
                    WHERE h.request_id = ANY (v_asked) AND h.request_id BETWEEN v_first AND v_last);
  END IF;
  PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
  v_now := clock_timestamp();

  FOR r IN
    SELECT x.*, w.tenant_id AS wallet_tenant_id, w.currency, w.paid_nanos, w.granted_nanos AS wallet_granted,
      w.receivable_nanos AS wallet_owed, w.pending_nanos, w.overdraft_nanos,
      h.state, h.amount_nanos, h.lease_until, h.resolved_by, h.checkpoint_at, h.checkpoint_prompt_tokens,
      h.checkpoint_cached_tokens, h.checkpoint_completion_tokens, h.checkpoint_reasoning_tokens,
      q.model_id, q.api_key_id, q.price_version_id, q.price_window_id, q.service_tier, q.admitted_at,
      q.choices, q.max_cost_nanos, q.cancel_policy,
      q.prompt_bound_tokens + q.choices * q.output_cap_tokens::bigint AS reserved_tokens, c.cost_nanos
    FROM (
      SELECT * FROM ROWS FROM (jsonb_to_recordset(p_rows) AS (
        request_id uuid, tenant_id uuid, source text, prompt_tokens bigint, cached_tokens bigint, image_tokens bigint,
        completion_tokens bigint, reasoning_tokens bigint, basis text, provenance text, payload_sha256 text,
        attempts jsonb)) WITH ORDINALITY
    ) x
    LEFT JOIN quotas_wallet w ON w.tenant_id = x.tenant_id
    LEFT JOIN unnest(v_held) h ON h.request_id = x.request_id AND h.tenant_id = x.tenant_id
    LEFT JOIN unnest(v_calls) q ON q.id = h.request_id
    LEFT JOIN LATERAL (
      SELECT CASE WHEN x.source = 'SWEEPER' THEN h.checkpoint_prompt_tokens ELSE x.prompt_tokens END AS prompt,
        CASE WHEN x.source = 'SWEEPER' THEN h.checkpoint_cached_tokens ELSE x.cached_tokens END AS cached,
        CASE WHEN x.source = 'SWEEPER' THEN 0 ELSE x.image_tokens END AS image,
        CASE WHEN x.source = 'SWEEPER' THEN h.checkpoint_completion_tokens ELSE x.completion_tokens END AS completion,
        CASE WHEN x.source = 'SWEEPER' THEN h.checkpoint_reasoning_tokens ELSE x.reasoning_tokens END AS reasoning
    ) f ON true
    LEFT JOIN LATERAL catalog_usage_costs(q.price_version_id, q.service_tier, q.price_window_id,
      f.prompt, f.cached, f.image, f.completion, f.reasoning) c ON true
    ORDER BY x.tenant_id, x.ordinality
  LOOP
    request_id := r.request_id; revision := NULL; charged_nanos := NULL; overrun_nanos := NULL; is_estimate := NULL;
    IF r.wallet_tenant_id IS NOT NULL AND NOT coalesce(r.tenant_id = ANY (v_locked), false)
       AND r.request_id = ANY (v_busy) THEN
      verdict := 'BUSY';
      RETURN NEXT; CONTINUE;
    END IF;
    IF r.wallet_tenant_id IS NULL OR r.state IS NULL THEN
      verdict := 'UNKNOWN';
      RETURN NEXT; CONTINUE;
    END IF;
    IF r.source = 'SWEEPER' THEN
      IF r.state <> 'PENDING' THEN
        verdict := 'ALREADY_DONE';
        RETURN NEXT; CONTINUE;
      ELSIF r.lease_until >= v_now THEN
        verdict := 'NOT_EXPIRED';
        RETURN NEXT; CONTINUE;
      END IF;
      r.prompt_tokens := r.checkpoint_prompt_tokens; r.cached_tokens := r.checkpoint_cached_tokens; r.image_tokens := 0;
      r.completion_tokens := r.checkpoint_completion_tokens; r.reasoning_tokens := r.checkpoint_reasoning_tokens;
      r.basis := CASE WHEN r.checkpoint_at IS NULL THEN 'NOTHING' ELSE 'CHECKPOINT' END;
      r.provenance := 'ESTIMATED';
      r.payload_sha256 := encode(sha256(convert_to(concat_ws(',', r.prompt_tokens, r.cached_tokens,
        r.completion_tokens, r.reasoning_tokens), 'UTF8')), 'hex');
      SELECT coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'outcome', 'LOST')), '[]') INTO r.attempts
      FROM quotas_attempt a WHERE a.request_id = r.request_id AND a.ended_at IS NULL;
    END IF;

    u_revision := 0; u_known := 0; u_has_gateway := NULL; u_is_same := NULL;
    u_charged := 0; u_granted := 0; u_owed := 0; u_overrun := 0; u_waived := 0; u_cost := 0;
    u_prompt := 0; u_cached := 0; u_completion := 0; u_reasoning := 0;
    -- No revision exists while the hold is pending.
    IF r.state <> 'PENDING' THEN
      PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
      SELECT coalesce(max(x.revision), 0), count(*), bool_or(x.source = 'GATEWAY'),
        bool_or(x.source = 'GATEWAY' AND x.payload_sha256 = decode(r.payload_sha256, 'hex'))
      INTO u_revision, u_known, u_has_gateway, u_is_same FROM quotas_usagerecord x WHERE x.request_id = r.request_id;
      IF u_known > 0 THEN
        SELECT x.charged_nanos, x.granted_nanos, x.receivable_nanos, x.overrun_nanos, x.waived_nanos, x.cost_nanos,
          x.prompt_tokens, x.cached_tokens, x.completion_tokens, x.reasoning_tokens
        INTO u_charged, u_granted, u_owed, u_overrun, u_waived, u_cost, u_prompt, u_cached, u_completion, u_reasoning
        FROM quotas_usagerecord x WHERE x.request_id = r.request_id AND x.revision = u_revision;
      END IF;
      PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
    END IF;
    IF u_has_gateway OR (r.state IN ('POSTED', 'VOIDED') AND r.resolved_by = 'GATEWAY') THEN
      -- Without a record, what the gateway did was to void the call.
      verdict := CASE WHEN u_is_same OR (r.basis = 'NOTHING' AND u_revision = 0) THEN 'ALREADY_DONE' ELSE 'CONFLICT' END;
      revision := u_revision;
      RETURN NEXT; CONTINUE;
    END IF;
    IF r.attempts IS NOT NULL THEN
      v_ends := array_append(v_ends, r.attempts);
    END IF;
    IF NOT r.api_key_id = ANY (v_keys) THEN
      v_keys := array_append(v_keys, r.api_key_id);
    END IF;

    IF r.tenant_id IS DISTINCT FROM v_tenant THEN
      v_tenant := r.tenant_id;
      v_paid := r.paid_nanos; v_granted := r.wallet_granted; v_owed := r.wallet_owed;
      v_pending := r.pending_nanos; v_overdraft := r.overdraft_nanos;
    END IF;

    IF r.state = 'PENDING' THEN
      v_pending := v_pending - r.amount_nanos;
      v_resolved := array_append(v_resolved, r.request_id);
      v_states := array_append(v_states,
        CASE WHEN r.basis = 'NOTHING' THEN 'VOIDED' WHEN r.source = 'SWEEPER' THEN 'EXPIRED' ELSE 'POSTED' END);
      v_sources := array_append(v_sources, r.source);
      IF r.tenant_id = ANY (v_counted) THEN
        v_changes := array_append(v_changes, ROW(r.tenant_id, r.model_id, r.api_key_id,
          (r.admitted_at AT TIME ZONE 'UTC')::date, 0, 0, -r.reserved_tokens, -r.amount_nanos)::quotas_use_change);
      END IF;
      IF r.basis = 'NOTHING' THEN
        verdict := 'SETTLED'; revision := 0; charged_nanos := 0; overrun_nanos := 0; is_estimate := false;
        RETURN NEXT; CONTINUE;
      END IF;
    ELSIF r.basis = 'NOTHING' AND u_revision = 0 THEN
      -- The sweeper voided it and the gateway, coming late, has nothing to charge either.
      verdict := 'ALREADY_DONE'; revision := 0;
      RETURN NEXT; CONTINUE;
    END IF;

    v_billed := 'DELIVERED';
    IF r.basis = 'NOTHING' THEN
      v_cost := 0; v_due := 0;
      r.prompt_tokens := 0; r.cached_tokens := 0; r.image_tokens := 0; r.completion_tokens := 0; r.reasoning_tokens := 0;
    ELSE
      v_cost := r.cost_nanos; v_due := v_cost;
      IF r.cancel_policy <> 'DELIVERED' AND r.choices > (
           SELECT count(*) FROM jsonb_array_elements(coalesce(r.attempts, '[]')) a WHERE a ->> 'outcome' = 'COMPLETED') THEN
        v_billed := r.cancel_policy;
        v_due := quotas_billed_cost(v_billed, r.price_version_id, r.service_tier, r.price_window_id, r.prompt_tokens,
          r.cached_tokens, r.image_tokens, r.completion_tokens, r.reasoning_tokens);
      END IF;
    END IF;
    charged_nanos := least(v_due, r.amount_nanos);
    overrun_nanos := v_due - charged_nanos;
    v_delta := charged_nanos - u_charged;
    d_granted := 0; d_owed := 0; d_paid := 0;
    IF v_delta > 0 THEN
      -- Granted credit is spent first. Behind a pending hold everything fits; a late charge takes what is
      -- free and the rest becomes a receivable.
      v_free := greatest(0, v_paid + v_granted + v_overdraft - v_pending);
      v_taken := least(v_delta, v_free);
      d_granted := least(greatest(0, v_granted), v_taken);
      d_paid := v_taken - d_granted;
      d_owed := v_delta - v_taken;
    ELSIF v_delta < 0 THEN
      -- A refund takes back in the opposite order: what is still owed, then paid, then granted credit.
      d_owed := -least(-v_delta, u_owed, -v_owed);
      d_granted := -greatest(0, least(u_granted, -v_delta + d_owed - (u_charged - u_granted - u_owed) - (u_owed + d_owed)));
      d_paid := v_delta - d_owed - d_granted;
    END IF;
    d_overrun := overrun_nanos - u_overrun; d_waived := v_cost - v_due - u_waived;
    v_paid := v_paid - d_paid; v_granted := v_granted - d_granted; v_owed := v_owed - d_owed;

    revision := u_revision + 1;
    v_transfer := NULL;
    IF v_delta <> 0 OR d_overrun <> 0 OR d_waived <> 0 OR d_granted <> 0 OR d_owed <> 0 THEN
      v_transfer := quotas_transfer_id('USAGE', r.request_id || ':' || revision);
      v_leg := ROW(v_transfer, 'USAGE', r.tenant_id, r.currency, r.request_id, revision, '', '', r.tenant_id, 0)::quotas_leg;
      FOREACH v_side IN ARRAY c_sides LOOP
        v_leg.account_kind := v_side;
        v_leg.amount_nanos := CASE v_side WHEN 'TOPPED_UP' THEN -d_paid WHEN 'GRANTED' THEN -d_granted
          WHEN 'RECEIVABLE' THEN -d_owed WHEN 'REVENUE' THEN d_paid + d_owed WHEN 'GRANTED_USAGE' THEN d_granted
          WHEN 'OVERRUN_EXPENSE' THEN -d_overrun WHEN 'WAIVED_EXPENSE' THEN -d_waived ELSE d_overrun + d_waived END;
        CONTINUE WHEN v_leg.amount_nanos = 0;
        v_leg.account_tenant_id := CASE WHEN v_side IN ('TOPPED_UP', 'GRANTED', 'RECEIVABLE') THEN r.tenant_id END;
        v_legs := array_append(v_legs, v_leg);
      END LOOP;
    END IF;
    v_usage.request_id := r.request_id; v_usage.revision := revision; v_usage.tenant_id := r.tenant_id;
    v_usage.prompt_tokens := r.prompt_tokens; v_usage.cached_tokens := r.cached_tokens;
    v_usage.image_tokens := r.image_tokens; v_usage.completion_tokens := r.completion_tokens;
    v_usage.reasoning_tokens := r.reasoning_tokens; v_usage.cost_nanos := v_cost;
    v_usage.charged_nanos := charged_nanos; v_usage.overrun_nanos := overrun_nanos;
    v_usage.waived_nanos := v_cost - v_due; v_usage.billed := v_billed; v_usage.max_cost_nanos := r.max_cost_nanos;
    v_usage.granted_nanos := u_granted + d_granted;
    -- What was owed and has been paid since may come back as paid credit, hence the bound.
    v_usage.receivable_nanos := least(u_owed + d_owed, charged_nanos - v_usage.granted_nanos);
    v_usage.basis := r.basis; v_usage.provenance := r.provenance; v_usage.source := r.source;
    v_usage.payload_sha256 := decode(r.payload_sha256, 'hex'); v_usage.transfer_id := v_transfer;
    v_usage.recorded_at := v_now;
    v_usages := array_append(v_usages, v_usage);

    v_sum.tenant_id := r.tenant_id; v_sum.hour := date_trunc('hour', r.admitted_at, 'UTC');
    v_sum.model_id := r.model_id; v_sum.api_key_id := r.api_key_id; v_sum.requests := 1 - least(u_known, 1);
    v_sum.prompt_tokens := r.prompt_tokens - u_prompt; v_sum.cached_tokens := r.cached_tokens - u_cached;
    v_sum.completion_tokens := r.completion_tokens - u_completion;
    v_sum.reasoning_tokens := r.reasoning_tokens - u_reasoning;
    v_sum.cost_nanos := v_cost - u_cost; v_sum.charged_nanos := v_delta;
    v_sums := array_append(v_sums, v_sum);
    IF r.tenant_id = ANY (v_counted) THEN
      v_changes := array_append(v_changes, ROW(r.tenant_id, r.model_id, r.api_key_id,
        (r.admitted_at AT TIME ZONE 'UTC')::date, v_sum.prompt_tokens + v_sum.completion_tokens, v_delta, 0, 0)
        ::quotas_use_change);
    END IF;

    verdict := 'SETTLED'; is_estimate := r.provenance = 'ESTIMATED';
    RETURN NEXT;
  END LOOP;
  IF cardinality(v_changes) > 0 THEN
    PERFORM quotas_move_limit_uses(v_changes);
  END IF;

  -- Holds first: the room that they free is what the transfers then take.
  PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
  UPDATE quotas_hold h SET state = x.state, resolved_at = v_now, resolved_by = x.source
  FROM unnest(v_resolved, v_states, v_sources) AS x(request_id, state, source)
  WHERE h.request_id = x.request_id AND h.request_id BETWEEN v_first AND v_last;
  PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
  IF cardinality(v_legs) > 0 THEN
    PERFORM quotas_post(v_legs);
  END IF;
  INSERT INTO quotas_usagerecord SELECT * FROM unnest(v_usages);
  INSERT INTO quotas_usagerollup AS o (tenant_id, hour, model_id, api_key_id, requests, prompt_tokens, cached_tokens,
    completion_tokens, reasoning_tokens, cost_nanos, charged_nanos)
  SELECT tenant_id, hour, model_id, api_key_id, sum(requests), sum(prompt_tokens), sum(cached_tokens),
    sum(completion_tokens), sum(reasoning_tokens), sum(cost_nanos), sum(charged_nanos)
  FROM unnest(v_sums) GROUP BY tenant_id, hour, model_id, api_key_id ORDER BY tenant_id, hour, model_id, api_key_id
  ON CONFLICT (tenant_id, hour, model_id, api_key_id) DO UPDATE SET
    requests = o.requests + excluded.requests, prompt_tokens = o.prompt_tokens + excluded.prompt_tokens,
    cached_tokens = o.cached_tokens + excluded.cached_tokens,
    completion_tokens = o.completion_tokens + excluded.completion_tokens,
    reasoning_tokens = o.reasoning_tokens + excluded.reasoning_tokens,
    cost_nanos = o.cost_nanos + excluded.cost_nanos, charged_nanos = o.charged_nanos + excluded.charged_nanos;
  PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
  SELECT (array_agg(x.id ORDER BY x.id))[1], (array_agg(x.id ORDER BY x.id DESC))[1]
  INTO v_first_attempt, v_last_attempt FROM unnest(v_ends) e CROSS JOIN LATERAL jsonb_to_recordset(e) AS x(id uuid);
  UPDATE quotas_attempt a SET ended_at = v_now, outcome = x.outcome, http_status = x.http_status, ttft_ms = x.ttft_ms,
    duration_ms = x.duration_ms, wire_id = coalesce(x.wire_id, ''), prompt_tokens = x.prompt_tokens,
    completion_tokens = x.completion_tokens
  FROM unnest(v_ends) e CROSS JOIN LATERAL jsonb_to_recordset(e) AS x(id uuid, outcome text, http_status int, ttft_ms int, duration_ms int,
    wire_id text, prompt_tokens bigint, completion_tokens bigint)
  WHERE a.id = x.id AND a.id BETWEEN v_first_attempt AND v_last_attempt AND (a.ended_at IS NULL OR a.outcome = 'LOST');
  PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
  -- "Last used" is for people: a minute's precision spares the key a write at every call.
  UPDATE tenants_apikey k SET last_used_at = v_now
  FROM (SELECT k2.id FROM tenants_apikey k2
        WHERE k2.id = ANY (v_keys) AND (k2.last_used_at IS NULL OR k2.last_used_at < v_now - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED) used
  WHERE k.id = used.id;
END $$;
