-- Corrections: one statement for a batch of calls whose records say something else than what is billed.

-- What calls used (both arrays sorted; attempts: all of those calls'), as both witnesses together have it. base:
-- whose word stands without any record (GATEWAY, SWEEPER or none); is_heard: whether a record counts. A whole
-- attempt counts as its record says, a lost one if its record has a normal end, all others as the gateway says.
-- Of several choices the sum of the differences counts, and a prompt once; is_unclear where that cannot be told.
-- is_whole: each choice came to its end. counted: the attempts whose records count.
CREATE FUNCTION quotas_feed_targets(p_calls uuid[], p_attempts uuid[])
RETURNS TABLE (request_id uuid, base text, is_heard boolean, is_unclear boolean, is_whole boolean, basis text,
               prompt_tokens bigint, cached_tokens bigint, image_tokens bigint, completion_tokens bigint,
               reasoning_tokens bigint, counted uuid[])
LANGUAGE sql STABLE AS $$
  WITH calls AS MATERIALIZED (
    SELECT q.id, q.choices, q.endpoint, q.prompt_bound_tokens::bigint AS bound, q.choices * q.output_cap_tokens::bigint AS cap,
      u.source, u.basis, coalesce(u.prompt_tokens, 0)::bigint AS prompt, coalesce(u.cached_tokens, 0)::bigint AS cached,
      coalesce(u.image_tokens, 0)::bigint AS image, coalesce(u.completion_tokens, 0)::bigint AS completion,
      coalesce(u.reasoning_tokens, 0)::bigint AS reasoning
    FROM quotas_inferencerequest q
    LEFT JOIN LATERAL (
      -- The gateway's word, late or not, comes before the sweeper's.
      SELECT r.* FROM quotas_usagerecord r WHERE r.request_id = q.id AND r.source <> 'FEED'
        AND r.request_id BETWEEN p_calls[1] AND p_calls[cardinality(p_calls)]
      ORDER BY r.revision DESC LIMIT 1
    ) u ON true
    WHERE q.id = ANY (p_calls) AND q.id BETWEEN p_calls[1] AND p_calls[cardinality(p_calls)]
  ), tries AS MATERIALIZED (
    SELECT a.id, a.request_id, a.choice_index, a.ordinal, a.outcome, a.prompt_tokens::bigint AS own_prompt,
      a.completion_tokens::bigint AS own_completion, s.prompt_tokens::bigint AS prompt, s.cached_tokens::bigint AS cached,
      s.completion_tokens::bigint AS completion, s.reasoning_tokens::bigint AS reasoning,
      s.subject_id IS NOT NULL AND CASE a.outcome WHEN 'COMPLETED' THEN s.finish NOT IN ('ABORT', 'ERROR')
        WHEN 'LOST' THEN s.finish IN ('STOP', 'LENGTH') ELSE false END
        -- What an operator decided about it stands, whatever is decided about the call's other attempts.
        AND NOT EXISTS (SELECT FROM quotas_discrepancy v WHERE v.attempt_id = a.id
          AND v.kind IN ('MISMATCHED', 'LOST_SETTLEMENT') AND v.state IN ('ACCEPTED', 'WAIVED')) AS counts
    FROM quotas_attempt a
    JOIN models_catalog_deployment d ON d.id = a.deployment_id
    LEFT JOIN quotas_feed_said(p_attempts) s ON s.subject_id = a.id AND s.backend_id = d.backend_id
    WHERE a.id = ANY (p_attempts) AND a.id BETWEEN p_attempts[1] AND p_attempts[cardinality(p_attempts)]
  ), chosen AS (
    -- Of a choice that was tried again and lost, the last try with a normal end was delivered.
    SELECT DISTINCT ON (t.request_id, t.choice_index) t.* FROM tries t WHERE t.outcome = 'LOST' AND t.counts
    ORDER BY t.request_id, t.choice_index, t.ordinal DESC, t.id DESC
  ), lost AS (
    SELECT c.request_id, count(*) AS choices, max(c.prompt) AS prompt, min(c.prompt) AS least_prompt,
      max(c.cached) AS cached, sum(c.completion) AS completion, sum(c.reasoning) AS reasoning, array_agg(c.id) AS ids
    FROM chosen c GROUP BY c.request_id
  ), whole AS (
    SELECT t.request_id, count(*) FILTER (WHERE t.outcome = 'COMPLETED') AS completed,
      count(*) FILTER (WHERE t.counts) AS heard,
      max(t.prompt) FILTER (WHERE t.counts) AS prompt, max(t.cached) FILTER (WHERE t.counts) AS cached,
      max(t.completion) FILTER (WHERE t.counts) AS completion, max(t.reasoning) FILTER (WHERE t.counts) AS reasoning,
      coalesce(bool_or(t.own_prompt IS NULL OR t.own_completion IS NULL) FILTER (WHERE t.counts), false) AS has_gaps,
      count(*) FILTER (WHERE t.counts AND t.prompt <> t.own_prompt) AS prompts_differ,
      min(t.prompt - t.own_prompt) FILTER (WHERE t.counts) AS least_more,
      max(t.prompt - t.own_prompt) FILTER (WHERE t.counts) AS most_more,
      sum(t.prompt - t.own_prompt) FILTER (WHERE t.counts) AS sum_more,
      sum(t.own_prompt) AS sum_own, min(t.own_prompt) AS least_own, max(t.own_prompt) AS most_own,
      sum(t.completion - t.own_completion) FILTER (WHERE t.counts) AS more_completion,
      array_agg(t.id) FILTER (WHERE t.counts) AS ids
    FROM tries t WHERE t.outcome = 'COMPLETED' GROUP BY t.request_id
  ), target AS (
    SELECT c.*, w.completed, l.choices AS normal_ends,
      c.source IS DISTINCT FROM 'GATEWAY' AS is_lost,
      CASE WHEN c.source = 'GATEWAY' THEN coalesce(w.heard, 0) ELSE coalesce(l.choices, 0) END > 0 AS is_heard,
      CASE WHEN c.source = 'GATEWAY' THEN w.ids ELSE l.ids END AS counted,
      -- A list of inputs may still lack some of its parts.
      CASE WHEN c.choices = 1 THEN c.source = 'GATEWAY' AND c.endpoint = 'embeddings' AND w.prompt < c.prompt
        WHEN c.source = 'GATEWAY' THEN w.has_gaps OR (w.prompts_differ > 0 AND w.sum_own <> c.prompt
          AND (w.least_own, w.least_more) IS DISTINCT FROM (w.most_own, w.most_more))
        ELSE l.prompt <> l.least_prompt END AS is_unclear,
      CASE WHEN c.source IS DISTINCT FROM 'GATEWAY' THEN CASE WHEN c.choices > 1 THEN greatest(l.prompt, c.prompt) ELSE l.prompt END
        WHEN c.choices = 1 THEN w.prompt
        WHEN w.prompts_differ = 0 THEN c.prompt WHEN w.sum_own = c.prompt THEN c.prompt + w.sum_more
        ELSE c.prompt + w.most_more END AS f_prompt,
      CASE WHEN c.choices > 1 THEN c.cached WHEN c.source = 'GATEWAY' THEN coalesce(w.cached, c.cached)
        ELSE coalesce(l.cached, c.cached) END AS f_cached,
      CASE WHEN c.source IS DISTINCT FROM 'GATEWAY' THEN
          CASE WHEN c.choices > 1 THEN greatest(l.completion, c.completion) ELSE l.completion END
        WHEN c.choices = 1 THEN w.completion ELSE c.completion + w.more_completion END AS f_completion,
      CASE WHEN c.source IS DISTINCT FROM 'GATEWAY' THEN coalesce(l.reasoning, c.reasoning)
        WHEN c.choices = 1 THEN coalesce(w.reasoning, c.reasoning) ELSE c.reasoning END AS f_reasoning
    FROM calls c
    LEFT JOIN whole w ON w.request_id = c.id
    LEFT JOIN lost l ON l.request_id = c.id AND c.source IS DISTINCT FROM 'GATEWAY'
  ), bounded AS (
    -- Never above what was admitted, unless the gateway's own word is.
    SELECT t.*, CASE WHEN t.is_heard THEN least(greatest(t.f_prompt, t.image), greatest(t.bound, t.prompt)) ELSE t.prompt END AS b_prompt,
      CASE WHEN t.is_heard THEN greatest(0, least(t.f_completion, greatest(t.cap, t.completion))) ELSE t.completion END AS b_completion
    FROM target t
  )
  SELECT b.id, coalesce(b.source, ''), b.is_heard, b.is_heard AND coalesce(b.is_unclear, false),
    coalesce(CASE WHEN b.is_lost THEN b.normal_ends ELSE b.completed END, 0) >= b.choices,
    CASE WHEN b.is_heard THEN 'FINAL_USAGE' ELSE coalesce(b.basis, 'NOTHING') END,
    b.b_prompt::bigint, CASE WHEN b.is_heard THEN least(b.f_cached, b.b_prompt - b.image) ELSE b.cached END::bigint, b.image,
    b.b_completion::bigint, CASE WHEN b.is_heard THEN least(b.f_reasoning, b.b_completion) ELSE b.reasoning END::bigint,
    coalesce(CASE WHEN b.is_heard THEN b.counted END, '{}')
  FROM bounded b
$$;

-- p_rows: [{request_id, tenant_id, action, ids, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens}]
--   with unique request ids; ids: the discrepancies that it is about, which the caller has locked.
--   AUTO: as the records say, within the limits: p_limit_nanos of each correction (either way) and p_day_nanos of
--   what all of a tenant's of today (UTC) come to; else they wait. APPROVE: without those limits. HAND: the counts
--   that are given. WAIVE: the bill stays, what the backend served beyond it is ours.
-- Answers one row per request: CORRECTED, EXPLAINED, WAITING, TOO_OLD, ALREADY_DONE, NOT_SETTLED, UNKNOWN or BUSY.
-- The target is a whole state, not a difference, and is worked out under the locks: asked again, nothing is written.
-- Upward only within p_days of the admission and within what was admitted; the rest is our expense, at list price.
CREATE FUNCTION quotas_correct(p_rows jsonb, p_block_ms int, p_limit_nanos bigint, p_day_nanos bigint, p_days int)
RETURNS TABLE (request_id uuid, tenant_id uuid, verdict text, revision int, delta_nanos bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_locked uuid[];
  v_now timestamptz;
  v_asked uuid[];
  v_first uuid;
  v_last uuid;
  v_attempts uuid[];
  v_counted uuid[];
  r record;
  v_outcome text;
  u quotas_usagerecord;
  v_is_first boolean;
  v_is_billed boolean;
  v_tenant uuid;
  v_paid bigint; v_granted bigint; v_owed bigint; v_pending bigint; v_overdraft bigint;
  v_today bigint;
  v_cost bigint; v_due bigint; v_delta bigint; v_free bigint; v_taken bigint; v_charged bigint; v_overrun bigint;
  d_granted bigint; d_owed bigint; d_paid bigint; d_overrun bigint; d_waived bigint;
  v_billed text; v_basis text; v_reason text; v_state text;
  v_transfer uuid;
  c_sides CONSTANT text[] := '{TOPPED_UP,GRANTED,RECEIVABLE,REVENUE,GRANTED_USAGE,OVERRUN_EXPENSE,WAIVED_EXPENSE,UNBILLED_USAGE}';
  v_side text;
  v_leg quotas_leg;
  v_legs quotas_leg[] := '{}';
  v_usage quotas_usagerecord;
  v_usages quotas_usagerecord[] := '{}';
  v_sum quotas_usagerollup;
  v_sums quotas_usagerollup[] := '{}';
  v_changes quotas_use_change[] := '{}';
  v_correction quotas_correction;
  v_corrections quotas_correction[] := '{}';
  v_found quotas_discrepancy;
  v_resolved quotas_discrepancy[] := '{}';
  v_more bigint;
BEGIN
  PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
  v_locked := quotas_lock_wallets(p_rows, p_block_ms);
  v_counted := ARRAY(SELECT t.id FROM unnest(v_locked) t(id)
                     WHERE EXISTS (SELECT 1 FROM quotas_limituse l WHERE l.tenant_id = t.id));
  SELECT array_agg(x.request_id ORDER BY x.request_id) INTO v_asked FROM jsonb_to_recordset(p_rows) AS x(request_id uuid);
  v_first := v_asked[1]; v_last := v_asked[cardinality(v_asked)];
  PERFORM 1 FROM quotas_hold h WHERE h.request_id = ANY (v_asked) AND h.request_id BETWEEN v_first AND v_last
    AND h.tenant_id = ANY (v_locked) ORDER BY h.request_id FOR NO KEY UPDATE;
  -- A call lasts at most a day.
  v_attempts := ARRAY(
    SELECT a.id FROM quotas_attempt a WHERE a.request_id = ANY (v_asked)
      AND a.id >= quotas_partition_bound(quotas_day_of(v_first)) AND a.id < quotas_partition_bound(quotas_day_of(v_last) + 2)
    ORDER BY a.id);
  v_now := clock_timestamp();

  FOR r IN
    SELECT x.*, w.tenant_id AS wallet_tenant_id, w.currency, w.paid_nanos, w.granted_nanos AS wallet_granted,
      w.receivable_nanos AS wallet_owed, w.pending_nanos, w.overdraft_nanos,
      h.state, h.amount_nanos, h.checkpoint_prompt_tokens, h.checkpoint_completion_tokens,
      q.model_id, q.api_key_id, q.price_version_id, q.price_window_id, q.service_tier, q.admitted_at,
      q.choices, q.max_cost_nanos, q.cancel_policy, f.base, f.is_heard, f.is_unclear, f.is_whole, f.basis, f.counted,
      f.image, f.prompt, f.cached, f.completion, f.reasoning, c.cost_nanos,
      n.usage, o.charged_nanos AS base_nanos, k.cause, e.found, e.outcomes, e.places
    FROM (
      SELECT * FROM ROWS FROM (jsonb_to_recordset(p_rows) AS (request_id uuid, tenant_id uuid, action text, ids uuid[],
        prompt_tokens bigint, cached_tokens bigint, completion_tokens bigint, reasoning_tokens bigint)) WITH ORDINALITY
    ) x
    LEFT JOIN quotas_wallet w ON w.tenant_id = x.tenant_id
    LEFT JOIN quotas_hold h ON h.request_id = x.request_id AND h.tenant_id = x.tenant_id
      AND h.request_id BETWEEN v_first AND v_last
    LEFT JOIN quotas_inferencerequest q ON q.id = h.request_id AND q.id BETWEEN v_first AND v_last
    LEFT JOIN (
      SELECT t.*, y.action, t.image_tokens AS image,
        CASE WHEN y.action = 'HAND' THEN y.prompt_tokens ELSE t.prompt_tokens END AS prompt,
        CASE WHEN y.action = 'HAND' THEN y.cached_tokens ELSE t.cached_tokens END AS cached,
        CASE WHEN y.action = 'HAND' THEN y.completion_tokens ELSE t.completion_tokens END AS completion,
        CASE WHEN y.action = 'HAND' THEN y.reasoning_tokens ELSE t.reasoning_tokens END AS reasoning
      FROM quotas_feed_targets(v_asked, v_attempts) t
      JOIN jsonb_to_recordset(p_rows) AS y(request_id uuid, action text, prompt_tokens bigint, cached_tokens bigint,
        completion_tokens bigint, reasoning_tokens bigint) ON y.request_id = t.request_id
    ) f ON f.request_id = x.request_id
    LEFT JOIN LATERAL catalog_usage_costs(q.price_version_id, q.service_tier, q.price_window_id,
      f.prompt, f.cached, f.image, f.completion, f.reasoning) c ON true
    -- What stands now; what stood without any correction; why it was last corrected.
    LEFT JOIN LATERAL (SELECT v AS usage FROM quotas_usagerecord v WHERE v.request_id = h.request_id
      AND v.request_id BETWEEN v_first AND v_last ORDER BY v.revision DESC LIMIT 1) n ON true
    LEFT JOIN LATERAL (SELECT v.charged_nanos FROM quotas_usagerecord v WHERE v.request_id = h.request_id
      AND v.source <> 'FEED' AND v.request_id BETWEEN v_first AND v_last ORDER BY v.revision DESC LIMIT 1) o ON true
    LEFT JOIN LATERAL (SELECT v.cause FROM quotas_correction v WHERE v.request_id = h.request_id
      ORDER BY v.revision DESC LIMIT 1) k ON true
    LEFT JOIN LATERAL (
      SELECT array_agg(v ORDER BY v.attempt_id, v.kind) AS found, array_agg(a.outcome ORDER BY v.attempt_id, v.kind) AS outcomes,
        array_agg(a.choice_index ORDER BY v.attempt_id, v.kind) AS places
      FROM quotas_discrepancy v
      LEFT JOIN quotas_attempt a ON a.id = v.attempt_id AND a.id BETWEEN v_attempts[1] AND v_attempts[cardinality(v_attempts)]
      WHERE v.id = ANY (x.ids) AND v.request_id = x.request_id AND v.kind <> 'GATEWAY_ONLY'
    ) e ON true
    ORDER BY x.tenant_id, x.ordinality
  LOOP
    -- Nothing that is asked from here on is partitioned.
    PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
    request_id := r.request_id; tenant_id := r.tenant_id; revision := NULL; delta_nanos := NULL;
    IF r.wallet_tenant_id IS NOT NULL AND NOT coalesce(r.tenant_id = ANY (v_locked), false) THEN
      verdict := 'BUSY';
      RETURN NEXT; CONTINUE;
    ELSIF r.wallet_tenant_id IS NULL OR r.state IS NULL THEN
      verdict := 'UNKNOWN';
      RETURN NEXT; CONTINUE;
    ELSIF r.state = 'PENDING' THEN
      verdict := 'NOT_SETTLED';
      RETURN NEXT; CONTINUE;
    END IF;
    IF r.tenant_id IS DISTINCT FROM v_tenant THEN
      v_tenant := r.tenant_id;
      v_paid := r.paid_nanos; v_granted := r.wallet_granted; v_owed := r.wallet_owed;
      v_pending := r.pending_nanos; v_overdraft := r.overdraft_nanos;
      SELECT coalesce(sum(abs(x.delta_nanos)), 0) INTO v_today FROM quotas_correction x
      WHERE x.tenant_id = r.tenant_id AND x.posted_at >= date_trunc('day', v_now, 'UTC');
    END IF;
    -- Nulls where there is nothing.
    u := r.usage;
    v_basis := CASE WHEN r.action = 'HAND' THEN 'FINAL_USAGE' ELSE r.basis END;
    v_billed := CASE WHEN v_basis = 'NOTHING' OR r.is_whole OR (r.action = 'HAND' AND r.base <> 'GATEWAY') THEN 'DELIVERED'
      ELSE r.cancel_policy END;
    v_cost := CASE WHEN v_basis = 'NOTHING' THEN 0 ELSE r.cost_nanos END;
    v_due := CASE WHEN v_basis = 'NOTHING' OR v_billed = 'DELIVERED' THEN v_cost
      ELSE quotas_billed_cost(v_billed, r.price_version_id, r.service_tier, r.price_window_id, r.prompt, r.cached,
        r.image, r.completion, r.reasoning) END;
    v_charged := least(v_due, r.amount_nanos);
    v_overrun := v_due - v_charged;
    v_delta := v_charged - coalesce(u.charged_nanos, 0);
    v_reason := '';
    verdict := CASE
      WHEN r.action = 'WAIVE' THEN 'EXPLAINED'
      WHEN (r.prompt, r.cached, r.completion, r.reasoning) IS NOT DISTINCT FROM (coalesce(u.prompt_tokens, 0)::bigint,
        coalesce(u.cached_tokens, 0)::bigint, coalesce(u.completion_tokens, 0)::bigint, coalesce(u.reasoning_tokens, 0)::bigint)
        -- The same counts may be billed otherwise: a call that seemed to break off came to its end.
        AND (u.request_id IS NULL OR (u.billed = v_billed AND v_delta = 0)) THEN 'ALREADY_DONE'
      WHEN v_delta > 0 AND r.admitted_at < v_now - make_interval(days => p_days) THEN 'TOO_OLD'
      WHEN r.is_unclear AND r.action <> 'HAND' THEN 'WAITING'
      -- Nor do records that grow creep past the limit one by one.
      WHEN r.action = 'AUTO' AND (coalesce(r.cause = 'BY_HAND', false) OR abs(v_delta) > p_limit_nanos
        OR abs(v_charged - coalesce(r.base_nanos, 0)) > p_limit_nanos
        OR (v_delta <> 0 AND v_today + abs(v_delta) > p_day_nanos)) THEN 'WAITING'
      ELSE 'CORRECTED' END;
    delta_nanos := CASE WHEN verdict = 'WAITING' AND r.is_unclear THEN NULL
      WHEN verdict IN ('CORRECTED', 'WAITING', 'TOO_OLD') THEN v_delta ELSE 0 END;

    IF verdict = 'CORRECTED' THEN
      v_today := v_today + abs(v_delta);
      d_granted := 0; d_owed := 0; d_paid := 0;
      IF v_delta > 0 THEN
        -- It must not be refused: granted credit first, then what is free of the rest, and what is missing is owed.
        v_free := greatest(0, v_paid + v_granted + v_overdraft - v_pending);
        v_taken := least(v_delta, v_free);
        d_granted := least(greatest(0, v_granted), v_taken);
        d_paid := v_taken - d_granted;
        d_owed := v_delta - v_taken;
      ELSIF v_delta < 0 THEN
        -- Back in the opposite order: what is still owed, then paid, then granted credit.
        d_owed := -least(-v_delta, u.receivable_nanos, -v_owed);
        d_granted := -greatest(0, least(u.granted_nanos,
          -v_delta + d_owed - (u.charged_nanos - u.granted_nanos - u.receivable_nanos) - (u.receivable_nanos + d_owed)));
        d_paid := v_delta - d_owed - d_granted;
      END IF;
      d_overrun := v_overrun - coalesce(u.overrun_nanos, 0);
      d_waived := v_cost - v_due - coalesce(u.waived_nanos, 0);
      v_paid := v_paid - d_paid; v_granted := v_granted - d_granted; v_owed := v_owed - d_owed;
      revision := coalesce(u.revision, 0) + 1;
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
      v_usage.prompt_tokens := r.prompt; v_usage.cached_tokens := r.cached; v_usage.image_tokens := r.image;
      v_usage.completion_tokens := r.completion; v_usage.reasoning_tokens := r.reasoning; v_usage.cost_nanos := v_cost;
      v_usage.charged_nanos := v_charged; v_usage.overrun_nanos := v_overrun; v_usage.waived_nanos := v_cost - v_due;
      v_usage.billed := v_billed; v_usage.max_cost_nanos := r.max_cost_nanos;
      v_usage.granted_nanos := coalesce(u.granted_nanos, 0) + d_granted;
      -- What was owed and has been paid since may come back as paid credit, hence the bound.
      v_usage.receivable_nanos := least(coalesce(u.receivable_nanos, 0) + d_owed, v_charged - v_usage.granted_nanos);
      v_usage.basis := v_basis; v_usage.provenance := 'CORRECTED'; v_usage.source := 'FEED';
      v_usage.payload_sha256 := sha256(convert_to(concat_ws(',', r.prompt, r.cached, r.image, r.completion, r.reasoning, v_basis), 'UTF8'));
      v_usage.transfer_id := v_transfer; v_usage.recorded_at := v_now;
      v_usages := array_append(v_usages, v_usage);

      v_sum.tenant_id := r.tenant_id; v_sum.hour := date_trunc('hour', r.admitted_at, 'UTC');
      v_sum.model_id := r.model_id; v_sum.api_key_id := r.api_key_id;
      v_sum.requests := CASE WHEN u.revision IS NULL THEN 1 ELSE 0 END;
      v_sum.prompt_tokens := r.prompt - coalesce(u.prompt_tokens, 0); v_sum.cached_tokens := r.cached - coalesce(u.cached_tokens, 0);
      v_sum.completion_tokens := r.completion - coalesce(u.completion_tokens, 0);
      v_sum.reasoning_tokens := r.reasoning - coalesce(u.reasoning_tokens, 0);
      v_sum.cost_nanos := v_cost - coalesce(u.cost_nanos, 0); v_sum.charged_nanos := v_delta;
      v_sums := array_append(v_sums, v_sum);
      IF r.tenant_id = ANY (v_counted) THEN
        v_changes := array_append(v_changes, ROW(r.tenant_id, r.model_id, r.api_key_id,
          (r.admitted_at AT TIME ZONE 'UTC')::date, v_sum.prompt_tokens + v_sum.completion_tokens, v_delta, 0, 0)
          ::quotas_use_change);
      END IF;
      v_correction.request_id := r.request_id; v_correction.revision := revision; v_correction.tenant_id := r.tenant_id;
      v_correction.cause := CASE WHEN r.action = 'HAND' THEN 'BY_HAND' WHEN r.base = 'GATEWAY' THEN 'COUNTS_DIFFER'
        ELSE 'SETTLEMENT_LOST' END;
      v_correction.delta_nanos := v_delta; v_correction.posted_at := v_now;
      v_corrections := array_append(v_corrections, v_correction);
    END IF;

    -- What becomes of each discrepancy, and what of it is our expense.
    v_is_first := true;
    FOR v_place IN 1 .. coalesce(cardinality(r.found), 0) LOOP
      v_found := r.found[v_place]; v_outcome := r.outcomes[v_place];
      v_is_billed := r.action = 'HAND' OR v_found.attempt_id = ANY (r.counted);
      -- What a lost settlement left to the next kind of row, and what a whole answer's record that broke off says.
      v_state := CASE
        WHEN r.action = 'WAIVE' THEN 'WAIVED'
        WHEN r.action <> 'HAND' AND v_found.kind = 'LOST_SETTLEMENT' AND v_outcome <> 'LOST' THEN 'EXPLAINED'
        WHEN r.action <> 'HAND' AND v_found.kind = 'SURPLUS' THEN 'EXPLAINED'
        WHEN verdict = 'TOO_OLD' THEN 'EXPLAINED'
        WHEN verdict = 'WAITING' AND v_is_billed THEN 'WAITING'
        WHEN r.action = 'AUTO' AND v_found.kind = 'MISMATCHED' AND v_outcome = 'COMPLETED' AND NOT v_is_billed THEN 'WAITING'
        WHEN verdict = 'CORRECTED' AND v_is_billed THEN 'CORRECTED'
        -- The revision that stands says what this record says.
        WHEN verdict = 'ALREADY_DONE' AND v_is_billed AND u.source = 'FEED' THEN 'CORRECTED'
        ELSE 'EXPLAINED' END;
      v_reason := CASE WHEN v_state <> 'EXPLAINED' THEN ''
        WHEN v_found.kind = 'LOST_SETTLEMENT' AND v_outcome <> 'LOST' THEN 'SETTLED_LATE'
        WHEN verdict = 'TOO_OLD' THEN 'TOO_OLD' WHEN v_found.kind = 'SURPLUS' THEN 'BROKE_OFF'
        WHEN v_found.kind = 'LOST_SETTLEMENT' AND NOT v_is_billed THEN 'BROKE_OFF'
        WHEN v_outcome <> 'COMPLETED' AND v_outcome <> 'LOST' THEN 'BROKE_OFF' ELSE 'AGREES' END;
      v_more := 0;
      IF v_reason NOT IN ('SETTLED_LATE', 'AGREES') AND v_state <> 'WAITING' THEN
        SELECT greatest(0, catalog_usage_cost(r.price_version_id, r.service_tier, r.price_window_id, m.prompt, 0, 0, m.completion, 0)
            - catalog_usage_cost(r.price_version_id, r.service_tier, r.price_window_id, 0, 0, 0, 0, 0))
        INTO v_more
        FROM (SELECT greatest(0, v_found.feed_prompt_tokens - b.prompt)::bigint AS prompt,
            greatest(0, v_found.feed_completion_tokens - b.completion)::bigint AS completion
          FROM (SELECT
            CASE WHEN v_state = 'CORRECTED' THEN CASE WHEN r.choices = 1 THEN r.prompt ELSE v_found.feed_prompt_tokens END
              WHEN v_found.kind = 'LOST_SETTLEMENT' AND v_outcome = 'LOST' THEN CASE WHEN r.places[v_place] = 0 THEN u.prompt_tokens ELSE 0 END
              ELSE v_found.gateway_prompt_tokens END AS prompt,
            CASE WHEN v_state = 'CORRECTED' THEN CASE WHEN r.choices = 1 THEN r.completion ELSE v_found.feed_completion_tokens END
              WHEN v_found.kind = 'LOST_SETTLEMENT' AND v_outcome = 'LOST' THEN CASE WHEN r.places[v_place] = 0 THEN u.completion_tokens ELSE 0 END
              ELSE v_found.gateway_completion_tokens END AS completion) n
          CROSS JOIN LATERAL (SELECT coalesce(n.prompt, 0) AS prompt, coalesce(n.completion, 0) AS completion) b) m
        WHERE m.prompt > 0 OR m.completion > 0;
        v_more := coalesce(v_more, 0);
      END IF;
      IF v_more <> v_found.overrun_nanos THEN
        v_found.overrun_revision := v_found.overrun_revision + 1;
        v_leg := ROW(quotas_transfer_id('SURPLUS', v_found.id || ':' || v_found.overrun_revision), 'SURPLUS', NULL,
          r.currency, NULL, NULL, 'served beyond what is billed', 'OVERRUN_EXPENSE', NULL, v_found.overrun_nanos - v_more)::quotas_leg;
        v_legs := array_append(v_legs, v_leg);
        v_leg.account_kind := 'UNBILLED_USAGE'; v_leg.amount_nanos := -v_leg.amount_nanos;
        v_legs := array_append(v_legs, v_leg);
        v_found.overrun_nanos := v_more;
      END IF;
      v_found.state := v_state; v_found.reason := v_reason;
      v_found.revision := CASE WHEN v_state <> 'CORRECTED' THEN NULL WHEN verdict = 'CORRECTED' THEN revision ELSE u.revision END;
      -- One of a call's discrepancies carries what the call's bill changes: waiting, against what stands; posted,
      -- against what stood without any correction.
      v_found.delta_nanos := CASE WHEN NOT v_is_first THEN 0 WHEN v_state = 'WAITING' THEN delta_nanos
        WHEN v_state = 'CORRECTED' THEN CASE WHEN verdict = 'CORRECTED' THEN v_charged ELSE u.charged_nanos END - coalesce(r.base_nanos, 0)
        ELSE 0 END;
      v_is_first := v_is_first AND v_state NOT IN ('CORRECTED', 'WAITING');
      v_found.resolved_at := CASE WHEN v_state <> 'WAITING' THEN v_now END;
      v_resolved := array_append(v_resolved, v_found);
    END LOOP;
    RETURN NEXT;
  END LOOP;
  PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);

  IF cardinality(v_changes) > 0 THEN
    PERFORM quotas_move_limit_uses(v_changes);
  END IF;
  IF cardinality(v_legs) > 0 THEN
    PERFORM quotas_post(v_legs);
  END IF;
  INSERT INTO quotas_usagerecord SELECT * FROM unnest(v_usages);
  INSERT INTO quotas_correction SELECT * FROM unnest(v_corrections);
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
  UPDATE quotas_discrepancy d SET state = x.state, reason = x.reason, revision = x.revision, delta_nanos = x.delta_nanos,
    overrun_nanos = x.overrun_nanos, overrun_revision = x.overrun_revision, resolved_at = x.resolved_at
  FROM unnest(v_resolved) x WHERE d.id = x.id;
END $$;
