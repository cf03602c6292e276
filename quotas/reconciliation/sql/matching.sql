-- Feed records beside what the gateway metered. What a record counts for is a function of the set of records of
-- its attempt, never of the order in which they came. One transaction at a time brings or judges the records of a
-- backend (advisory lock), so that none misses another's.

-- The day that an id lies in (UTC).
CREATE FUNCTION quotas_day_of(p_id uuid) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (to_timestamp(('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC')::date
$$;

-- A new UUIDv7.
CREATE FUNCTION quotas_new_id(p_at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT (lpad(to_hex((extract(epoch FROM p_at) * 1000)::bigint), 12, '0') || '7' || substr(r.hex, 14))::uuid
  FROM (SELECT replace(gen_random_uuid()::text, '-', '') AS hex) r
$$;

-- What backends said of attempts (sorted ids): of each part the record that counts, added up. Which one counts: a
-- finished one before one that says nothing of its end, that before one that broke off; then the greater counts.
-- is_disputed: others say something else. parts: how many of a list of inputs were told of. contents, places and
-- verdicts: each record of it, its rank within its part, and how it stood until now.
CREATE FUNCTION quotas_feed_said(p_subjects uuid[])
RETURNS TABLE (subject_id uuid, backend_id uuid, parts bigint, prompt_tokens bigint, cached_tokens bigint,
               completion_tokens bigint, reasoning_tokens bigint, finish text, event_at timestamptz, is_late boolean,
               is_disputed boolean, contents uuid[], places bigint[], verdicts text[])
LANGUAGE sql STABLE AS $$
  SELECT p.subject_id, p.backend_id, count(*) FILTER (WHERE p.place = 1),
    -- A backend may say absurd things of several parts; what is stored of their sum has room for so much.
    least(sum(p.prompt_tokens) FILTER (WHERE p.place = 1), 2147483647),
    CASE WHEN bool_and(p.cached_tokens IS NOT NULL) FILTER (WHERE p.place = 1)
      THEN least(sum(p.cached_tokens) FILTER (WHERE p.place = 1), 2147483647) END,
    least(sum(p.completion_tokens) FILTER (WHERE p.place = 1), 2147483647),
    CASE WHEN bool_and(p.reasoning_tokens IS NOT NULL) FILTER (WHERE p.place = 1)
      THEN least(sum(p.reasoning_tokens) FILTER (WHERE p.place = 1), 2147483647) END,
    (array_agg(p.finish ORDER BY array_position('{ABORT,ERROR,UNKNOWN,LENGTH,STOP}', p.finish::text))
      FILTER (WHERE p.place = 1))[1],
    max(p.event_at) FILTER (WHERE p.place = 1), bool_or(p.is_late),
    -- Another way in may leave things out; that is no other word.
    bool_or(p.prompt_tokens <> p.first_prompt OR p.completion_tokens <> p.first_completion
      OR p.cached_tokens <> p.first_cached OR p.reasoning_tokens <> p.first_reasoning
      OR (p.finish IN ('ABORT', 'ERROR')) <> (p.first_finish IN ('ABORT', 'ERROR'))),
    array_agg(p.content_id ORDER BY p.content_id), array_agg(p.place ORDER BY p.content_id),
    array_agg(p.verdict::text ORDER BY p.content_id)
  FROM (
    SELECT f.*, row_number() OVER best AS place,
      first_value(f.prompt_tokens) OVER best AS first_prompt,
      first_value(f.completion_tokens) OVER best AS first_completion,
      first_value(f.cached_tokens) OVER best AS first_cached,
      first_value(f.reasoning_tokens) OVER best AS first_reasoning,
      first_value(f.finish) OVER best AS first_finish
    FROM quotas_feedrecord f
    WHERE f.subject_id = ANY (p_subjects)
      AND f.subject_id BETWEEN p_subjects[1] AND p_subjects[cardinality(p_subjects)]
    WINDOW best AS (PARTITION BY f.subject_id, f.backend_id, f.part ORDER BY
      CASE WHEN f.finish IN ('STOP', 'LENGTH') THEN 1 WHEN f.finish = 'UNKNOWN' THEN 2 ELSE 3 END,
      f.completion_tokens DESC, f.prompt_tokens DESC, (f.cached_tokens IS NULL), (f.reasoning_tokens IS NULL),
      f.cached_tokens DESC, f.reasoning_tokens DESC, f.content_id)
  ) p
  GROUP BY p.subject_id, p.backend_id
$$;

-- Decides anew how the records of some attempts of one backend (sorted ids) stand to the gateway's word, and opens
-- or opens again what nobody has decided about these counts yet. Holding the backend's advisory lock.
CREATE FUNCTION quotas_judge_feed(p_backend uuid, p_subjects uuid[], p_now timestamptz) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  v_last int := cardinality(p_subjects);
  v_calls uuid[];
BEGIN
  IF coalesce(v_last, 0) = 0 THEN
    RETURN;
  END IF;
  SELECT array_agg(DISTINCT a.request_id ORDER BY a.request_id) INTO v_calls FROM quotas_attempt a
  WHERE a.id = ANY (p_subjects) AND a.id BETWEEN p_subjects[1] AND p_subjects[v_last];

  WITH judged AS MATERIALIZED (
    SELECT s.*, t.request_id, t.tenant_id, t.outcome, t.is_ours, g.gateway_prompt, g.gateway_cached,
      g.gateway_completion, g.gateway_reasoning,
      CASE WHEN t.is_ours IS NOT TRUE THEN 'FOREIGN' WHEN t.outcome IS NULL THEN 'EARLY'
        WHEN t.outcome = 'LOST' THEN 'MISMATCHED'
        WHEN s.prompt_tokens = coalesce(g.gateway_prompt, 0) AND s.completion_tokens = coalesce(g.gateway_completion, 0)
          AND coalesce(s.cached_tokens = g.gateway_cached, true)
          AND coalesce(s.reasoning_tokens = g.gateway_reasoning, true) THEN 'MATCHED'
        ELSE 'MISMATCHED' END AS verdict
    FROM quotas_feed_said(p_subjects) s
    LEFT JOIN LATERAL (
      SELECT a.request_id, a.tenant_id, a.outcome, a.prompt_tokens, a.completion_tokens, d.id IS NOT NULL AS is_ours
      FROM quotas_attempt a
      LEFT JOIN models_catalog_deployment d ON d.id = a.deployment_id AND d.backend_id = p_backend
      WHERE a.id = s.subject_id AND a.id BETWEEN p_subjects[1] AND p_subjects[v_last]
    ) t ON true
    LEFT JOIN quotas_inferencerequest q ON q.id = t.request_id
      AND q.id BETWEEN v_calls[1] AND v_calls[cardinality(v_calls)]
    LEFT JOIN quotas_usagerecord u ON u.request_id = t.request_id AND u.source = 'GATEWAY' AND q.choices = 1
      AND u.request_id BETWEEN v_calls[1] AND v_calls[cardinality(v_calls)]
    -- Where the backend reported nothing, what was billed is all that the gateway knows. Of several choices only
    -- the sum of cached and reasoning tokens is known.
    CROSS JOIN LATERAL (SELECT
      coalesce(t.prompt_tokens, CASE WHEN t.outcome IN ('COMPLETED', 'CLIENT_GONE', 'CUT') THEN u.prompt_tokens END)
        AS gateway_prompt,
      CASE WHEN t.outcome = 'COMPLETED' THEN u.cached_tokens END AS gateway_cached,
      coalesce(t.completion_tokens, CASE WHEN t.outcome IN ('COMPLETED', 'CLIENT_GONE', 'CUT') THEN u.completion_tokens END)
        AS gateway_completion,
      CASE WHEN t.outcome = 'COMPLETED' THEN u.reasoning_tokens END AS gateway_reasoning
    ) g
    WHERE s.backend_id = p_backend
  ), placed AS (
    SELECT j.*, CASE WHEN j.outcome = 'LOST' THEN 'LOST_SETTLEMENT' WHEN j.verdict <> 'MISMATCHED' THEN NULL
      WHEN j.outcome <> 'COMPLETED' AND (j.prompt_tokens > coalesce(j.gateway_prompt, 0)
        OR j.completion_tokens > coalesce(j.gateway_completion, 0)) THEN 'SURPLUS'
      ELSE 'MISMATCHED' END AS kind
    FROM judged j
  ), ranked AS (
    -- Without a join of the records: of a day that has just begun the planner knows nothing, and would compare each
    -- record with each.
    UPDATE quotas_feedrecord f SET verdict = x.verdict
    FROM (
      SELECT y.* FROM (
        SELECT j.subject_id, r.content_id, r.before,
          CASE WHEN j.verdict IN ('FOREIGN', 'EARLY') THEN j.verdict WHEN r.place > 1 THEN 'REPEATED' ELSE j.verdict END AS verdict
        FROM judged j CROSS JOIN LATERAL unnest(j.contents, j.places, j.verdicts) AS r(content_id, place, before)
      ) y
      WHERE y.before <> y.verdict
    ) x
    WHERE f.subject_id = x.subject_id AND f.content_id = x.content_id
      AND f.subject_id BETWEEN p_subjects[1] AND p_subjects[v_last]
  ), suspended AS (
    INSERT INTO quotas_suspenseitem (id, kind, state, backend_id, subject_id, event_at, prompt_tokens,
      completion_tokens, opened_at, reason)
    SELECT quotas_new_id(p_now), 'RECORD', 'OPEN', p_backend, j.subject_id, j.event_at, j.prompt_tokens, j.completion_tokens,
      p_now, ''
    FROM judged j WHERE j.verdict = 'FOREIGN' ORDER BY j.subject_id
    ON CONFLICT DO NOTHING
  ), came AS (
    UPDATE quotas_discrepancy d SET state = 'EXPLAINED', is_late = true, resolved_at = p_now, reason = 'CAME_LATE',
      feed_prompt_tokens = j.prompt_tokens, feed_cached_tokens = j.cached_tokens,
      feed_completion_tokens = j.completion_tokens, feed_reasoning_tokens = j.reasoning_tokens, feed_finish = j.finish
    FROM judged j
    WHERE d.attempt_id = j.subject_id AND d.kind = 'GATEWAY_ONLY' AND d.state IN ('OPEN', 'WAITING') AND j.is_ours
  ), told AS (
    SELECT p.*, k.kind AS row_kind
    FROM placed p CROSS JOIN LATERAL (
      SELECT p.kind WHERE p.kind IS NOT NULL
      UNION SELECT d.kind FROM quotas_discrepancy d
        WHERE d.attempt_id = p.subject_id AND d.kind IN ('MISMATCHED', 'LOST_SETTLEMENT', 'SURPLUS')
      UNION SELECT 'REPEATED' WHERE p.is_disputed
    ) k
    WHERE p.verdict NOT IN ('FOREIGN', 'EARLY')
  )
  INSERT INTO quotas_discrepancy AS d (id, kind, state, attempt_id, request_id, tenant_id, backend_id, event_at,
    opened_at, gateway_prompt_tokens, gateway_cached_tokens, gateway_completion_tokens, gateway_reasoning_tokens,
    feed_prompt_tokens, feed_cached_tokens, feed_completion_tokens, feed_reasoning_tokens, feed_finish, is_late,
    resolved_at, reason)
  SELECT quotas_new_id(p_now), t.row_kind, CASE WHEN t.row_kind = 'REPEATED' THEN 'EXPLAINED' ELSE 'OPEN' END, t.subject_id,
    t.request_id, t.tenant_id, p_backend, t.event_at, p_now, w.gateway_prompt, w.gateway_cached,
    w.gateway_completion, w.gateway_reasoning, t.prompt_tokens, t.cached_tokens,
    t.completion_tokens, t.reasoning_tokens, t.finish, t.is_late,
    CASE WHEN t.row_kind = 'REPEATED' THEN p_now END, CASE WHEN t.row_kind = 'REPEATED' THEN 'ONE_COUNTS' ELSE '' END
  FROM told t
  -- Of a lost settlement there is no word of the gateway; once it comes it is one, if it was nothing too.
  CROSS JOIN LATERAL (SELECT
    CASE WHEN t.outcome <> 'LOST' THEN coalesce(t.gateway_prompt, 0) END AS gateway_prompt,
    CASE WHEN t.outcome <> 'LOST' THEN t.gateway_cached END AS gateway_cached,
    CASE WHEN t.outcome <> 'LOST' THEN coalesce(t.gateway_completion, 0) END AS gateway_completion,
    CASE WHEN t.outcome <> 'LOST' THEN t.gateway_reasoning END AS gateway_reasoning) w
  ORDER BY t.subject_id, t.row_kind
  ON CONFLICT (attempt_id, kind) DO UPDATE SET
    -- What a person decided about other counts, a person decides about again.
    state = CASE WHEN excluded.kind = 'REPEATED' THEN 'EXPLAINED'
      WHEN d.resolved_by_id IS NOT NULL THEN 'WAITING' ELSE 'OPEN' END,
    resolved_at = CASE WHEN excluded.kind = 'REPEATED' THEN p_now END, revision = NULL,
    reason = excluded.reason, event_at = excluded.event_at, is_late = d.is_late OR excluded.is_late,
    gateway_prompt_tokens = excluded.gateway_prompt_tokens, gateway_cached_tokens = excluded.gateway_cached_tokens,
    gateway_completion_tokens = excluded.gateway_completion_tokens,
    gateway_reasoning_tokens = excluded.gateway_reasoning_tokens,
    feed_prompt_tokens = excluded.feed_prompt_tokens, feed_cached_tokens = excluded.feed_cached_tokens,
    feed_completion_tokens = excluded.feed_completion_tokens, feed_reasoning_tokens = excluded.feed_reasoning_tokens,
    feed_finish = excluded.feed_finish
  WHERE (d.gateway_prompt_tokens, d.gateway_cached_tokens, d.gateway_completion_tokens, d.gateway_reasoning_tokens,
      d.feed_prompt_tokens, d.feed_cached_tokens, d.feed_completion_tokens, d.feed_reasoning_tokens, d.feed_finish)
    IS DISTINCT FROM (excluded.gateway_prompt_tokens, excluded.gateway_cached_tokens,
      excluded.gateway_completion_tokens, excluded.gateway_reasoning_tokens, excluded.feed_prompt_tokens,
      excluded.feed_cached_tokens, excluded.feed_completion_tokens, excluded.feed_reasoning_tokens, excluded.feed_finish);
END $$;

-- Takes in what the caller has put into its temporary table feed_staging (subject_id uuid, content_id uuid,
-- part smallint, wire_id text, prompt_tokens int, cached_tokens int, completion_tokens int, reasoning_tokens int,
-- finish text, event_at timestamptz), and judges it on the way. A record that agrees costs its insert and nothing
-- else. Answers how many are new and how they stand; misplaced: of a day that has no partition, not stored.
CREATE FUNCTION quotas_take_feed(p_feed uuid, p_received_at timestamptz)
RETURNS TABLE (stored bigint, matched bigint, mismatched bigint, early bigint, foreign_count bigint, misplaced bigint)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_backend uuid;
  v_closed timestamptz;
  v_first uuid;
  v_last uuid;
  v_first_call uuid;
  v_last_call uuid;
  v_again uuid[];
  v_judged uuid[];
BEGIN
  SELECT f.backend_id INTO STRICT v_backend FROM models_catalog_usagefeed f WHERE f.id = p_feed;
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_feed:' || v_backend, 0));
  misplaced := quotas_drop_misplaced();
  SELECT (SELECT s.subject_id FROM feed_staging s ORDER BY s.subject_id LIMIT 1),
    (SELECT s.subject_id FROM feed_staging s ORDER BY s.subject_id DESC LIMIT 1) INTO v_first, v_last;
  IF v_first IS NULL THEN
    stored := 0; matched := 0; mismatched := 0; early := 0; foreign_count := 0;
    RETURN NEXT; RETURN;
  END IF;
  SELECT max(w.to_at) INTO v_closed FROM quotas_controlwindow w WHERE w.backend_id = v_backend AND w.state = 'CLOSED';
  -- Bounds of the ids leave out the other days' partitions, and of a day what is nowhere near.
  SELECT (array_agg(c.request_id ORDER BY c.request_id))[1], (array_agg(c.request_id ORDER BY c.request_id DESC))[1]
  INTO v_first_call, v_last_call
  FROM (SELECT a.request_id FROM feed_staging s JOIN quotas_attempt a ON a.id = s.subject_id
        WHERE a.id BETWEEN v_first AND v_last) c;
  -- Attempts of which there is something else already: few.
  v_again := ARRAY(
    SELECT f.subject_id FROM feed_staging s JOIN quotas_feedrecord f ON f.subject_id = s.subject_id
    WHERE f.subject_id BETWEEN v_first AND v_last AND (f.content_id <> s.content_id OR f.backend_id <> v_backend)
    UNION
    SELECT d.attempt_id FROM quotas_discrepancy d JOIN feed_staging s ON s.subject_id = d.attempt_id
    WHERE d.kind = 'GATEWAY_ONLY' AND d.state IN ('OPEN', 'WAITING') AND d.attempt_id BETWEEN v_first AND v_last);

  WITH new AS (
    INSERT INTO quotas_feedrecord (subject_id, content_id, backend_id, feed_id, part, wire_id, prompt_tokens,
      cached_tokens, completion_tokens, reasoning_tokens, finish, event_at, received_at, verdict, is_late)
    SELECT s.subject_id, s.content_id, v_backend, p_feed, s.part,
      CASE WHEN a.id IS NULL THEN coalesce(left(s.wire_id, 200), '') ELSE '' END, s.prompt_tokens, s.cached_tokens,
      s.completion_tokens, s.reasoning_tokens, s.finish, coalesce(s.event_at, p_received_at), p_received_at,
      CASE WHEN a.id IS NULL THEN 'FOREIGN' WHEN a.outcome IS NULL THEN 'EARLY'
        WHEN s.subjects = 1 AND NOT (s.subject_id = ANY (v_again)) AND a.outcome = 'COMPLETED' AND u.request_id IS NOT NULL
          AND s.prompt_tokens = a.prompt_tokens AND s.completion_tokens = a.completion_tokens
          AND coalesce((s.cached_tokens = u.cached_tokens AND s.reasoning_tokens = u.reasoning_tokens)
            -- Of several choices the parts of each are not known.
            OR u.completion_tokens <> a.completion_tokens, true) THEN 'MATCHED'
        ELSE 'MISMATCHED' END,
      coalesce(coalesce(s.event_at, p_received_at) < v_closed, false)
    FROM (
      SELECT d.*, count(*) OVER (PARTITION BY d.subject_id) AS subjects
      FROM (SELECT DISTINCT ON (x.subject_id, x.content_id) x.* FROM feed_staging x
            ORDER BY x.subject_id, x.content_id) d
    ) s
    LEFT JOIN (
      SELECT t.id, t.request_id, t.outcome, t.prompt_tokens, t.completion_tokens
      FROM quotas_attempt t JOIN models_catalog_deployment p ON p.id = t.deployment_id AND p.backend_id = v_backend
      WHERE t.id BETWEEN v_first AND v_last
    ) a ON a.id = s.subject_id
    -- The first revision is the gateway's unless the sweeper was there before: then it is looked at closely.
    LEFT JOIN quotas_usagerecord u ON u.request_id = a.request_id AND u.revision = 1 AND u.source = 'GATEWAY'
      AND u.request_id BETWEEN v_first_call AND v_last_call
    ORDER BY s.subject_id, s.content_id
    ON CONFLICT DO NOTHING
    RETURNING subject_id, verdict
  )
  SELECT count(*), count(*) FILTER (WHERE n.verdict = 'MATCHED'), count(*) FILTER (WHERE n.verdict = 'MISMATCHED'),
    count(*) FILTER (WHERE n.verdict = 'EARLY'), count(*) FILTER (WHERE n.verdict = 'FOREIGN'),
    array_agg(DISTINCT n.subject_id ORDER BY n.subject_id) FILTER (WHERE n.verdict IN ('MISMATCHED', 'FOREIGN'))
  INTO stored, matched, mismatched, early, foreign_count, v_judged FROM new n;
  PERFORM quotas_judge_feed(v_backend, v_judged, p_received_at);
  RETURN NEXT;
END $$;

-- Takes out of feed_staging what lies in a day without a partition: no attempt of ours does. How many.
CREATE FUNCTION quotas_drop_misplaced() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  v_from date;
  v_to date;
  v_dropped bigint;
BEGIN
  SELECT quotas_day_of((SELECT s.subject_id FROM feed_staging s ORDER BY s.subject_id LIMIT 1)),
    quotas_day_of((SELECT s.subject_id FROM feed_staging s ORDER BY s.subject_id DESC LIMIT 1)) INTO v_from, v_to;
  IF v_to - v_from <= 400 AND NOT EXISTS (
      SELECT FROM generate_series(v_from, v_to, interval '1 day') d
      WHERE to_regclass('public.quotas_feedrecord_' || to_char(d, 'YYYYMMDD')) IS NULL) THEN
    RETURN 0;
  END IF;
  DELETE FROM feed_staging s
  WHERE to_regclass('public.quotas_feedrecord_' || to_char(quotas_day_of(s.subject_id), 'YYYYMMDD')) IS NULL;
  GET DIAGNOSTICS v_dropped = ROW_COUNT;
  RETURN v_dropped;
END $$;

-- Looks again at what came before its attempt was settled, and at lost settlements whose gateway has spoken after
-- all; at most p_limit of each, not further back than p_since. How many attempts.
CREATE FUNCTION quotas_match_feed_again(p_backend uuid, p_since timestamptz, p_limit int) RETURNS int
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  v_first uuid := quotas_partition_bound((p_since AT TIME ZONE 'UTC')::date);
  v_last uuid := quotas_partition_bound((now() AT TIME ZONE 'UTC')::date + 2);
  v_early uuid[];
  v_subjects uuid[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_feed:' || p_backend, 0));
  v_early := ARRAY(
    SELECT f.subject_id FROM quotas_feedrecord f JOIN quotas_attempt a ON a.id = f.subject_id
    WHERE f.backend_id = p_backend AND f.verdict = 'EARLY' AND f.subject_id BETWEEN v_first AND v_last
      AND a.id BETWEEN v_first AND v_last AND a.outcome IS NOT NULL LIMIT p_limit);
  v_subjects := ARRAY(
    SELECT unnest(v_early)
    UNION
    (SELECT d.attempt_id FROM quotas_discrepancy d JOIN quotas_attempt a ON a.id = d.attempt_id
     WHERE d.backend_id = p_backend AND d.kind = 'LOST_SETTLEMENT' AND d.gateway_prompt_tokens IS NULL
       AND d.attempt_id BETWEEN v_first AND v_last AND a.id BETWEEN v_first AND v_last AND a.outcome <> 'LOST'
     LIMIT p_limit)
    ORDER BY 1);
  PERFORM quotas_judge_feed(p_backend, v_subjects, now());
  RETURN cardinality(v_subjects);
END $$;

-- Opens what nobody confirms: attempts that completed on a backend in a period of which its feed has said all.
CREATE FUNCTION quotas_open_gateway_only(p_backend uuid, p_from timestamptz, p_to timestamptz, p_now timestamptz)
RETURNS int LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  -- No call lasts six hours: of a day only what may be meant is read, for it is asked every few minutes.
  v_first uuid := rpad(lpad(to_hex((extract(epoch FROM p_from - interval '6 hours') * 1000)::bigint), 12, '0'), 32, '0')::uuid;
  v_last uuid := rpad(lpad(to_hex((extract(epoch FROM p_to + interval '1 hour') * 1000)::bigint), 12, '0'), 32, '0')::uuid;
  v_opened int;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_feed:' || p_backend, 0));
  INSERT INTO quotas_discrepancy (id, kind, state, attempt_id, request_id, tenant_id, backend_id, event_at, opened_at,
    gateway_prompt_tokens, gateway_completion_tokens, feed_finish, is_late, reason)
  SELECT quotas_new_id(p_now), 'GATEWAY_ONLY', 'OPEN', a.id, a.request_id, a.tenant_id, p_backend, a.ended_at, p_now,
    a.prompt_tokens, a.completion_tokens, '', false, ''
  FROM quotas_attempt a JOIN models_catalog_deployment d ON d.id = a.deployment_id AND d.backend_id = p_backend
  WHERE a.id BETWEEN v_first AND v_last AND a.outcome = 'COMPLETED' AND a.ended_at >= p_from AND a.ended_at < p_to
    AND NOT EXISTS (SELECT FROM quotas_feedrecord f WHERE f.subject_id = a.id AND f.backend_id = p_backend
                    AND f.subject_id BETWEEN v_first AND v_last)
  ORDER BY a.id
  ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS v_opened = ROW_COUNT;
  RETURN v_opened;
END $$;
