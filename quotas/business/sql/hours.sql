-- The hours from %(from)s until %(to)s with what their figures rest on as one text: it is another one when a
-- settlement or a revision came, even one that changes no sum (hence xmin: each rewrites its rollup's row), and
-- when a version of a cost or a capacity began, ended or was withdrawn in the hour.
WITH usage AS (
  SELECT r.hour, sum(hashtextextended(concat_ws(',', r.xmin, r.tenant_id, r.model_id, r.api_key_id, r.requests,
      r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.charged_nanos), 0)::numeric) AS hash
  FROM quotas_usagerollup r WHERE r.hour >= %(from)s AND r.hour < %(to)s GROUP BY r.hour
), versions AS (
  SELECT id, active_from, active_to FROM models_catalog_poolcostversion
  WHERE active_from < %(to)s AND (active_to IS NULL OR active_to > greatest(active_from, %(from)s))
  UNION ALL
  SELECT id, active_from, active_to FROM models_catalog_capacityversion
  WHERE active_from < %(to)s AND (active_to IS NULL OR active_to > greatest(active_from, %(from)s))
), fleet AS (
  SELECT h.hour, sum(hashtextextended(concat_ws(',', v.id,
      extract(epoch FROM greatest(v.active_from, h.hour)),
      extract(epoch FROM least(v.active_to, h.hour + interval '1 hour'))), 0)::numeric) AS hash
  FROM generate_series(%(from)s, %(to)s - interval '1 second', interval '1 hour') AS h(hour)
  JOIN versions v ON v.active_from < h.hour + interval '1 hour' AND (v.active_to IS NULL OR v.active_to > h.hour)
  GROUP BY h.hour
)
SELECT h.hour, coalesce(u.hash, 0) || ':' || coalesce(f.hash, 0) AS mark
FROM generate_series(%(from)s, %(to)s - interval '1 second', interval '1 hour') AS h(hour)
LEFT JOIN usage u ON u.hour = h.hour
LEFT JOIN fleet f ON f.hour = h.hour
