-- What the calls of some minutes have been charged by now and was not granted, by minute, deployment and
-- currency. A call counts in the minute of its id.
--
-- %(first)s, %(end)s: bounds of the requests' ids. %(first_try)s, %(end_try)s: of their attempts' ids. Bounds
-- leave out the other days' partitions.
--
-- For a live screen, so it is told simpler than sql/served.sql tells it: what several deployments served
-- counts for the first that delivered.
WITH calls AS MATERIALIZED (
  SELECT u.request_id, u.tenant_id, u.charged_nanos - u.granted_nanos AS revenue_nanos
  FROM quotas_usagerecord u
  WHERE u.request_id >= %(first)s AND u.request_id < %(end)s AND u.charged_nanos > u.granted_nanos
    AND NOT EXISTS (SELECT 1 FROM quotas_usagerecord n WHERE n.request_id = u.request_id
      AND n.request_id >= %(first)s AND n.request_id < %(end)s AND n.revision > u.revision)
), tries AS (
  SELECT c.*, a.deployment_id, a.ordinal,
    coalesce(a.completion_tokens > 0 OR (a.prompt_tokens > 0 AND a.outcome = 'COMPLETED'), false) AS has_delivered
  FROM calls c
  JOIN quotas_attempt a ON a.request_id = c.request_id AND a.id >= %(first_try)s AND a.id < %(end_try)s
), served AS (
  SELECT DISTINCT ON (request_id) * FROM tries
  -- Where none says what it delivered, the one that was tried last did.
  ORDER BY request_id, has_delivered DESC, CASE WHEN has_delivered THEN ordinal ELSE -ordinal END
)
SELECT ('x' || left(replace(s.request_id::text, '-', ''), 12))::bit(48)::bigint / 60000 AS minute,
  s.deployment_id, t.currency, sum(s.revenue_nanos)::bigint
FROM served s JOIN tenants_tenant t ON t.id = s.tenant_id
GROUP BY 1, 2, 3
