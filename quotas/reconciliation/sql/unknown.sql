-- Attempts that ended in the window where no two samples of one life of the backend stand around them.
-- %(backends)s: [{backend_id, until}]; the other parameters as in metered.sql.
SELECT b.backend_id, count(*), coalesce(sum(a.prompt_tokens + a.completion_tokens), 0)::bigint
FROM jsonb_to_recordset(%(backends)s::jsonb) AS b(backend_id uuid, until timestamptz)
JOIN models_catalog_deployment d ON d.backend_id = b.backend_id
JOIN quotas_attempt a ON a.deployment_id = d.id AND a.id BETWEEN %(first)s AND %(last)s
  AND a.ended_at > %(from)s AND a.ended_at <= b.until
WHERE NOT EXISTS (
  SELECT 1 FROM jsonb_to_recordset(%(segments)s::jsonb) AS s(backend_id uuid, from_asked timestamptz, to_asked timestamptz)
  WHERE s.backend_id = b.backend_id AND a.ended_at > s.from_asked AND a.ended_at <= s.to_asked)
GROUP BY 1
