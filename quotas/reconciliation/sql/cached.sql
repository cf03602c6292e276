-- Cached tokens in what was metered, for engines whose prompt counter leaves them out and that do not say
-- how many they were. A record keeps them for the call as a whole, so of calls with several choices only
-- the bound is known. Parameters as in metered.sql.
-- Answers for each segment: cached tokens of calls with one choice; attempts and prompts of the others.
SELECT s.key,
  coalesce(sum(u.cached_tokens) FILTER (WHERE q.choices = 1), 0)::bigint,
  count(*) FILTER (WHERE q.choices > 1),
  coalesce(sum(a.prompt_tokens) FILTER (WHERE q.choices > 1), 0)::bigint
FROM jsonb_to_recordset(%(segments)s::jsonb) AS s(key int, backend_id uuid, from_asked timestamptz, to_asked timestamptz)
JOIN models_catalog_deployment d ON d.backend_id = s.backend_id
JOIN quotas_attempt a ON a.deployment_id = d.id AND a.id BETWEEN %(first)s AND %(last)s
  AND a.ended_at > s.from_asked AND a.ended_at <= s.to_asked AND a.prompt_tokens IS NOT NULL
JOIN quotas_inferencerequest q ON q.id = a.request_id AND q.id BETWEEN %(first)s AND %(last)s
LEFT JOIN quotas_usagerecord u ON u.request_id = q.id AND u.request_id BETWEEN %(first)s AND %(last)s
  AND NOT EXISTS (SELECT 1 FROM quotas_usagerecord n WHERE n.request_id = u.request_id
    AND n.request_id BETWEEN %(first)s AND %(last)s AND n.revision > u.revision)
GROUP BY s.key
