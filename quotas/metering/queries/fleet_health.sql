-- Every backend with its calls in flight, its attempts that ended lately in two spans, and its counters.
WITH attempts AS (
  SELECT d.backend_id, a.ended_at, a.outcome, a.ttft_ms, a.completion_tokens,
         a.ended_at IS NULL AS is_in_flight,
         a.ended_at >= %(recent)s AS is_recent
  FROM quotas_attempt a
  JOIN models_catalog_deployment d ON d.id = a.deployment_id
  WHERE a.id >= %(first)s AND a.id < %(end)s
    AND (a.ended_at IS NULL OR (a.ended_at >= %(longer)s AND a.outcome <> ALL (%(no_try)s)))
), calls AS (
  SELECT backend_id,
         count(*) FILTER (WHERE is_in_flight) AS in_flight,
         count(*) FILTER (WHERE is_recent) AS recent_attempts,
         count(*) FILTER (WHERE is_recent AND outcome = ANY (%(failed)s)) AS recent_failed,
         count(*) FILTER (WHERE is_recent AND outcome = ANY (%(timed_out)s)) AS recent_timeouts,
         percentile_disc(0.5) WITHIN GROUP (ORDER BY ttft_ms) FILTER (WHERE is_recent) AS recent_ttft_ms,
         sum(completion_tokens) FILTER (WHERE is_recent) AS recent_tokens,
         count(*) FILTER (WHERE NOT is_in_flight) AS longer_attempts,
         count(*) FILTER (WHERE outcome = ANY (%(failed)s)) AS longer_failed,
         count(*) FILTER (WHERE outcome = ANY (%(timed_out)s)) AS longer_timeouts,
         percentile_disc(0.5) WITHIN GROUP (ORDER BY ttft_ms) FILTER (WHERE NOT is_in_flight) AS longer_ttft_ms,
         sum(completion_tokens) FILTER (WHERE NOT is_in_flight) AS longer_tokens
  FROM attempts
  GROUP BY backend_id
)
SELECT b.id, b.max_concurrency, coalesce(c.in_flight, 0),
       coalesce(c.recent_attempts, 0), coalesce(c.recent_failed, 0), coalesce(c.recent_timeouts, 0),
       c.recent_ttft_ms, coalesce(c.recent_tokens, 0),
       coalesce(c.longer_attempts, 0), coalesce(c.longer_failed, 0), coalesce(c.longer_timeouts, 0),
       c.longer_ttft_ms, coalesce(c.longer_tokens, 0),
       read.sampled_at, newest.error, read.running
FROM models_catalog_servingbackend b
LEFT JOIN calls c ON c.backend_id = b.id
LEFT JOIN LATERAL (
  -- In the order of their index: the lives of a backend are numbered in time.
  SELECT sampled_at, running FROM quotas_countersample
  WHERE backend_id = b.id AND error = '' ORDER BY incarnation DESC, sampled_at DESC LIMIT 1
) read ON true
LEFT JOIN LATERAL (
  SELECT error FROM quotas_countersample WHERE backend_id = b.id ORDER BY sampled_at DESC LIMIT 1
) newest ON true
