-- What the gateway metered on backends between two samples each, by what became of the attempts.
-- %(segments)s: [{key, backend_id, from_asked, from_read, is_busy_at_start, to_asked, to_read}]. The ids'
-- bounds leave out the other days' partitions.
-- Answers for each segment, kind of cause and whether the attempts were open at its start: how many they are,
-- their tokens as metered (prompt, completion), how many more the backend may have counted, and which of the
-- metered it may not have counted yet.
WITH segments AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(%(segments)s::jsonb) AS s(key int, backend_id uuid, from_asked timestamptz,
    from_read timestamptz, is_busy_at_start boolean, to_asked timestamptz, to_read timestamptz)
), unsure AS MATERIALIZED (
  -- Calls whose newest record does not rest on the backend's last word: few.
  SELECT u.request_id, u.prompt_tokens, u.completion_tokens FROM quotas_usagerecord u
  WHERE u.request_id BETWEEN %(first)s AND %(last)s AND u.basis <> 'FINAL_USAGE'
    AND NOT EXISTS (SELECT 1 FROM quotas_usagerecord n WHERE n.request_id = u.request_id
      AND n.request_id BETWEEN %(first)s AND %(last)s AND n.revision > u.revision)
), attempts AS (
  SELECT s.key, a.outcome,
    -- A window takes the attempts that ended after its first sample was asked for, up to when its last was.
    coalesce(a.ended_at > s.from_asked AND a.ended_at <= s.to_asked, false) AS is_metered,
    -- Over for us before the window, while the engine was still at work: at a call that we had left, or at
    -- putting the last one down.
    coalesce(a.ended_at <= s.from_asked, false) AS is_before,
    a.started_at <= s.from_read AS is_across_start,
    -- Engines at work bring their counters up to date a moment after the last word of a call.
    a.ended_at > s.to_asked - interval '10 seconds' AS is_recent,
    q.prompt_bound_tokens AS prompt_bound, q.output_cap_tokens AS output_cap,
    a.prompt_tokens IS NOT NULL OR (a.outcome = 'LOST' AND q.choices = 1 AND x.request_id IS NOT NULL) AS has_counts,
    x.request_id IS NOT NULL AS is_unsure,
    -- Of a lost attempt the checkpoint is what was billed.
    coalesce(a.prompt_tokens, CASE WHEN a.outcome = 'LOST' AND q.choices = 1 THEN x.prompt_tokens END, 0)::bigint AS prompt,
    coalesce(a.completion_tokens, CASE WHEN a.outcome = 'LOST' AND q.choices = 1 THEN x.completion_tokens END, 0)::bigint
      AS completion
  FROM segments s
  JOIN models_catalog_deployment d ON d.backend_id = s.backend_id
  JOIN quotas_attempt a ON a.deployment_id = d.id AND a.id BETWEEN %(first)s AND %(last)s
    AND a.started_at <= s.to_read
    AND (a.ended_at IS NULL OR a.ended_at > s.from_asked OR (s.is_busy_at_start AND a.ended_at > s.from_asked
      - CASE WHEN a.outcome = 'COMPLETED' THEN interval '5 seconds' ELSE interval '15 minutes' END))
  JOIN quotas_inferencerequest q ON q.id = a.request_id AND q.id BETWEEN %(first)s AND %(last)s
  LEFT JOIN unsure x ON x.request_id = a.request_id
), kinds AS (
  SELECT a.*, CASE
      WHEN is_before AND outcome IN ('BACKEND_REFUSED', 'UNREACHABLE', 'STALE') THEN ''
      WHEN is_before THEN 'ACROSS_START'
      WHEN NOT is_metered THEN 'IN_FLIGHT'
      WHEN outcome = 'COMPLETED' AND (is_unsure OR NOT has_counts) THEN 'NO_FINAL_USAGE'
      WHEN outcome = 'COMPLETED' THEN ''
      WHEN outcome IN ('CLIENT_GONE', 'CUT', 'LOST') THEN outcome
      WHEN outcome = 'BACKEND_TIMEOUT' THEN 'TIMEOUT'
      WHEN outcome = 'BACKEND_FAILED' THEN 'FAILED'
      -- Refused, unreachable and stale ones moved no counter.
      ELSE '' END AS kind
  FROM attempts a
)
SELECT key, kind, is_across_start AND is_metered AS is_across_start, count(*) FILTER (WHERE kind <> '' OR is_metered),
  coalesce(sum(prompt) FILTER (WHERE is_metered), 0)::bigint,
  coalesce(sum(completion) FILTER (WHERE is_metered), 0)::bigint,
  -- A prompt that the backend told us of has been counted as such.
  coalesce(sum(CASE WHEN kind = '' OR (is_metered AND has_counts) THEN 0 ELSE prompt_bound END), 0)::bigint,
  coalesce(sum(CASE WHEN kind = '' THEN 0 WHEN is_metered THEN greatest(output_cap - completion, 0)
    ELSE output_cap END), 0)::bigint,
  coalesce(sum(prompt) FILTER (WHERE is_metered AND is_recent), 0)::bigint,
  coalesce(sum(completion) FILTER (WHERE is_metered AND is_recent), 0)::bigint
FROM kinds GROUP BY 1, 2, 3
