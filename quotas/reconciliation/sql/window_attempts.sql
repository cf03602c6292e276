-- What became of the attempts between samples of the backends' counters, and which were under way at each sample.
-- %(samples)s: [{backend_id, n, asked, read, is_busy, has_feed}], n rising with time within a backend and without
-- a gap. The ids' bounds leave out the other days' partitions.
-- Answers rows (n, what, attempts, prompt, completion, more prompt, more completion, less prompt, less completion):
--   what = a class: of the attempts that ended between the sample before and sample n, their tokens as the backend's
--     record says or else as metered, how many more its counter may have taken of them, and how many fewer;
--   what = 'EDGE': at sample n, how many tokens of attempts that go on the counter may have taken (more), and how
--     many of attempts that ended before it may still be to come (less).
WITH sample AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(%(samples)s::jsonb) AS s(backend_id uuid, n int, asked timestamptz, read timestamptz,
    is_busy boolean, has_feed boolean)
), line AS MATERIALIZED (
  SELECT backend_id, min(n) AS base, count(*)::int AS samples, bool_or(has_feed) AS has_feed,
    array_agg(asked ORDER BY n) AS asked, array_agg(read ORDER BY n) AS read, array_agg(is_busy ORDER BY n) AS is_busy
  FROM sample GROUP BY backend_id
), unsure AS MATERIALIZED (
  -- Calls whose newest record does not rest on the backend's last word: few.
  SELECT u.request_id, u.prompt_tokens, u.completion_tokens FROM quotas_usagerecord u
  WHERE u.request_id BETWEEN %(first)s AND %(last)s AND u.basis <> 'FINAL_USAGE'
    AND NOT EXISTS (SELECT 1 FROM quotas_usagerecord n WHERE n.request_id = u.request_id
      AND n.request_id BETWEEN %(first)s AND %(last)s AND n.revision > u.revision)
), swept AS MATERIALIZED (
  -- What the sweeper gave up was over then, whatever came of it later.
  SELECT h.request_id, h.resolved_at FROM quotas_hold h
  WHERE h.request_id BETWEEN %(first)s AND %(last)s AND h.resolved_by = 'SWEEPER'
), record AS MATERIALIZED (
  -- Of records of the same part that differ one counts, and the others are REPEATED.
  SELECT r.subject_id, sum(r.prompt_tokens) AS prompt, sum(r.completion_tokens) AS completion,
    bool_and(r.verdict = 'MATCHED') AS is_matched, bool_or(r.finish IN ('ABORT', 'ERROR')) AS is_broken,
    bool_or(r.finish = 'UNKNOWN') AS is_unclear
  FROM quotas_feedrecord r
  WHERE r.subject_id BETWEEN %(first)s AND %(last)s AND r.verdict IN ('MATCHED', 'MISMATCHED', 'EARLY')
  GROUP BY r.subject_id
), attempt AS (
  SELECT l.backend_id, l.has_feed, a.outcome, a.started_at, least(a.ended_at, w.resolved_at) AS ended_at,
    q.prompt_bound_tokens::bigint AS prompt_bound, q.output_cap_tokens::bigint AS output_cap,
    r.subject_id IS NOT NULL AS has_record, coalesce(r.is_matched, false) AS is_matched,
    coalesce(r.is_broken OR (r.is_unclear AND a.outcome <> 'COMPLETED'), false) AS is_loose,
    x.request_id IS NOT NULL AS is_unsure,
    r.subject_id IS NOT NULL OR a.prompt_tokens IS NOT NULL
      OR (a.outcome = 'LOST' AND q.choices = 1 AND x.request_id IS NOT NULL) AS has_counts,
    -- Of a lost attempt the checkpoint is what was billed.
    coalesce(r.prompt, a.prompt_tokens, CASE WHEN a.outcome = 'LOST' AND q.choices = 1 THEN x.prompt_tokens END, 0)::bigint
      AS prompt,
    coalesce(r.completion, a.completion_tokens, CASE WHEN a.outcome = 'LOST' AND q.choices = 1 THEN x.completion_tokens END,
      0)::bigint AS completion
  FROM line l
  JOIN models_catalog_deployment d ON d.backend_id = l.backend_id
  JOIN quotas_attempt a ON a.deployment_id = d.id AND a.id BETWEEN %(first)s AND %(last)s
    AND a.started_at <= l.read[l.samples] AND (a.ended_at IS NULL OR a.ended_at > l.asked[1] - interval '15 minutes')
  JOIN quotas_inferencerequest q ON q.id = a.request_id AND q.id BETWEEN %(first)s AND %(last)s
  LEFT JOIN unsure x ON x.request_id = a.request_id
  LEFT JOIN swept w ON w.request_id = a.request_id
  LEFT JOIN record r ON r.subject_id = a.id
), classed AS (
  SELECT a.*, CASE
      WHEN outcome IN ('BACKEND_REFUSED', 'UNREACHABLE', 'STALE') AND NOT has_record THEN 'NOTHING'
      WHEN is_matched THEN 'MATCHED'
      WHEN outcome IN ('CLIENT_GONE', 'CUT', 'LOST') THEN outcome
      WHEN outcome = 'BACKEND_TIMEOUT' THEN 'TIMEOUT'
      WHEN outcome = 'BACKEND_FAILED' THEN 'FAILED'
      WHEN has_record THEN 'MISMATCHED'
      WHEN outcome = 'COMPLETED' AND (is_unsure OR NOT has_counts) THEN 'NO_FINAL_USAGE'
      WHEN has_feed THEN 'GATEWAY_ONLY'
      -- A backend without a feed has one witness more, its counter.
      ELSE 'MATCHED' END AS what
  FROM attempt a
), bounded AS (
  SELECT backend_id, what, started_at, ended_at, outcome,
    CASE WHEN what = 'NOTHING' THEN 0 ELSE prompt END AS prompt,
    CASE WHEN what = 'NOTHING' THEN 0 ELSE completion END AS completion,
    -- What is known to the token leaves nothing open; a prompt that the backend told us of has been counted as such.
    CASE WHEN is_exact OR has_counts THEN 0 ELSE prompt_bound END AS more_prompt,
    CASE WHEN is_exact THEN 0 ELSE greatest(output_cap - completion, 0) END AS more_completion,
    CASE WHEN is_loose THEN prompt ELSE 0 END AS less_prompt,
    CASE WHEN is_loose THEN completion ELSE 0 END AS less_completion
  FROM classed, LATERAL (SELECT ended_at IS NOT NULL AND (what = 'NOTHING' OR (has_record AND NOT is_loose)
    OR what IN ('MATCHED', 'GATEWAY_ONLY')) AS is_exact) e
  UNION ALL
  -- Somebody else's calls: their moment is the backend's own, which may be a little off ours.
  SELECT r.backend_id, 'FOREIGN_RECORD', r.event_at - interval '60 seconds', r.event_at, 'COMPLETED',
    r.prompt_tokens, r.completion_tokens, 0, 0, 0, 0
  FROM line l
  JOIN quotas_feedrecord r ON r.backend_id = l.backend_id AND r.verdict = 'FOREIGN' AND NOT r.is_late
    AND r.event_at > l.asked[1] - interval '1 minute' AND r.event_at < l.asked[l.samples] + interval '1 minute'
    AND r.subject_id BETWEEN %(first)s AND %(last)s
), placed AS MATERIALIZED (
  SELECT b.*, l.base, l.samples, l.asked, l.is_busy,
    -- How many samples were read before it began, and asked for before it ended.
    width_bucket(b.started_at - interval '1 microsecond', l.read) AS begun,
    CASE WHEN b.ended_at IS NULL THEN l.samples ELSE width_bucket(b.ended_at - interval '1 microsecond', l.asked) END AS over
  FROM bounded b JOIN line l USING (backend_id)
)
SELECT base + over, what, count(*), sum(prompt)::bigint, sum(completion)::bigint, sum(more_prompt)::bigint,
  sum(more_completion)::bigint, sum(less_prompt)::bigint, sum(less_completion)::bigint
FROM placed WHERE ended_at IS NOT NULL AND over BETWEEN 1 AND samples - 1
GROUP BY 1, 2
UNION ALL
SELECT base + i, 'EDGE', count(*), 0, 0,
  coalesce(sum(prompt + more_prompt) FILTER (WHERE i < over), 0)::bigint,
  coalesce(sum(completion + more_completion) FILTER (WHERE i < over), 0)::bigint,
  coalesce(sum(prompt + more_prompt) FILTER (WHERE i >= over), 0)::bigint,
  coalesce(sum(completion + more_completion) FILTER (WHERE i >= over), 0)::bigint
FROM placed
CROSS JOIN LATERAL generate_series(least(begun, over), CASE WHEN ended_at IS NULL THEN samples
  WHEN what IN ('CLIENT_GONE', 'CUT', 'LOST', 'TIMEOUT', 'FAILED')
    THEN width_bucket(ended_at + interval '15 minutes', asked)
  ELSE width_bucket(ended_at + interval '10 seconds', asked) END - 1) AS i
WHERE what <> 'NOTHING' AND (i < over OR asked[i + 1] <= ended_at + interval '10 seconds' OR is_busy[i + 1])
GROUP BY 1
