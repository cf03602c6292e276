-- Who served what: the calls that were admitted in a period and have usage, by deployment and organization.
--
-- %(from)s, %(to)s: when the calls were admitted. %(first)s, %(last)s, %(last_try)s: bounds of the ids of
-- their requests and attempts, which leave out the other days' partitions.
--
-- Tokens of a call come from its newest usage record, and its attempts say where they were served:
--   * One attempt delivered: it served the record's tokens, class by class.
--   * Several delivered (one a choice): each served the tokens that its backend counted. The record counts
--     the prompt once, as the first of them met it, so its cached tokens are the first one's, at most its
--     prompt; what the others found in the cache is not known and counts as not cached.
--   * None says what it delivered (lost with its gateway, or counted by us from events): the one tried last
--     served the record's tokens, because a further attempt is made only while nothing has been delivered.
-- An attempt has delivered when it has output, or has come to its end with a prompt alone. What others cost
-- is nobody's: they weigh nothing.
--
-- A call weighs as its deployment's capacity version says that was in force when it was admitted, in
-- thousandths of a weighted token. Its revenue is what was charged and not granted.
--
-- Answers rows of two kinds. Calls of one deployment: request_id is null, and all of a deployment and
-- organization are one row. Calls that several deployments served: a row a deployment, in the order in which
-- they served it; the money in each is that of the whole call, to be split by `share`, and the request is
-- counted with the first.
WITH calls AS MATERIALIZED (
  SELECT q.id, q.tenant_id, q.admitted_at, u.prompt_tokens, u.cached_tokens, u.completion_tokens,
    u.charged_nanos - u.granted_nanos AS revenue_nanos, u.granted_nanos,
    -- Whatever was delivered and not billed is ours.
    u.overrun_nanos + u.waived_nanos AS overrun_nanos
  FROM quotas_inferencerequest q
  JOIN quotas_usagerecord u ON u.request_id = q.id AND u.request_id BETWEEN %(first)s AND %(last)s
  WHERE q.id BETWEEN %(first)s AND %(last)s AND q.admitted_at >= %(from)s AND q.admitted_at < %(to)s
    AND NOT EXISTS (SELECT 1 FROM quotas_usagerecord n WHERE n.request_id = u.request_id
      AND n.request_id BETWEEN %(first)s AND %(last)s AND n.revision > u.revision)
), tries AS (
  SELECT c.*, a.deployment_id, a.id AS attempt_id, a.ordinal, a.choice_index, coalesce(a.prompt_tokens, 0) AS own_prompt,
    coalesce(a.completion_tokens, 0) AS own_completion,
    coalesce(a.completion_tokens > 0 OR (a.prompt_tokens > 0 AND a.outcome = 'COMPLETED'), false) AS has_delivered
  FROM calls c
  JOIN quotas_attempt a ON a.request_id = c.id AND a.id BETWEEN %(first)s AND %(last_try)s
), placed AS (
  SELECT t.*, count(*) FILTER (WHERE has_delivered) OVER (PARTITION BY id) AS delivered,
    row_number() OVER (PARTITION BY id ORDER BY has_delivered DESC,
      CASE WHEN has_delivered THEN choice_index ELSE -ordinal END, CASE WHEN has_delivered THEN ordinal ELSE choice_index END,
      attempt_id) AS place
  FROM tries t
), served AS (
  SELECT id, tenant_id, admitted_at, deployment_id, place, revenue_nanos, granted_nanos, overrun_nanos,
    CASE WHEN delivered > 1 THEN own_prompt ELSE prompt_tokens END::bigint AS prompt,
    CASE WHEN delivered <= 1 THEN cached_tokens WHEN place = 1 THEN least(cached_tokens, own_prompt) ELSE 0 END::bigint
      AS cached,
    CASE WHEN delivered > 1 THEN own_completion ELSE completion_tokens END::bigint AS completion
  FROM placed WHERE has_delivered OR (delivered = 0 AND place = 1)
), weighed AS (
  SELECT s.id, s.tenant_id, s.deployment_id, min(s.place) AS place, min(s.revenue_nanos) AS revenue_nanos,
    min(s.granted_nanos) AS granted_nanos, min(s.overrun_nanos) AS overrun_nanos,
    sum(s.prompt)::bigint AS prompt, sum(s.cached)::bigint AS cached, sum(s.completion)::bigint AS completion,
    bool_and(v.id IS NOT NULL) AS has_capacity,
    coalesce(sum(v.input_weight::numeric * (s.prompt - s.cached) + v.cached_weight::numeric * s.cached
      + v.output_weight::numeric * s.completion), 0) AS weighted
  FROM served s
  LEFT JOIN models_catalog_capacityversion v ON v.deployment_id = s.deployment_id
    AND v.active_from <= s.admitted_at AND (v.active_to IS NULL OR s.admitted_at < v.active_to)
  GROUP BY s.id, s.tenant_id, s.deployment_id
), parts AS (
  SELECT w.*, count(*) OVER call > 1 AS is_shared, row_number() OVER (call ORDER BY place) = 1 AS is_first,
    -- Where a weight is not known, tokens have to do.
    CASE WHEN bool_and(has_capacity) OVER call THEN weighted ELSE prompt + completion END AS share
  FROM weighed w WINDOW call AS (PARTITION BY id)
)
SELECT NULL::uuid AS request_id, tenant_id, deployment_id, count(*) AS requests,
  count(*) FILTER (WHERE NOT has_capacity) AS uncosted_requests, sum(prompt)::bigint AS prompt_tokens,
  sum(cached)::bigint AS cached_tokens, sum(completion)::bigint AS completion_tokens, sum(weighted) AS weighted,
  0::numeric AS share, sum(revenue_nanos)::bigint AS revenue_nanos, sum(granted_nanos)::bigint AS granted_nanos,
  sum(overrun_nanos)::bigint AS overrun_nanos
FROM parts WHERE NOT is_shared GROUP BY tenant_id, deployment_id
UNION ALL
(SELECT id, tenant_id, deployment_id, is_first::int, (NOT has_capacity)::int, prompt, cached, completion,
  weighted, share, revenue_nanos, granted_nanos, overrun_nanos
FROM parts WHERE is_shared ORDER BY id, place)
