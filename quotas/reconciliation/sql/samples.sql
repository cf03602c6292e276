-- The samples around a window, for each life of each backend that was read in it: the last one before the
-- window (or else the first of that life), and the last one in it.
SELECT b.id, i.incarnation, f.asked_at, f.sampled_at, f.prompt_tokens, f.cached_tokens, f.completion_tokens,
  l.asked_at, l.sampled_at, l.prompt_tokens, l.cached_tokens, l.completion_tokens, l.running, l.prompt_excludes_cached,
  f.running
FROM models_catalog_servingbackend b
JOIN LATERAL (
  SELECT s.incarnation FROM quotas_countersample s
  WHERE s.backend_id = b.id AND s.error = '' AND s.sampled_at > %(from)s AND s.sampled_at <= %(to)s
  GROUP BY s.incarnation ORDER BY s.incarnation DESC LIMIT %(lives)s
) i ON true
JOIN LATERAL (
  SELECT s.* FROM quotas_countersample s
  WHERE s.backend_id = b.id AND s.incarnation = i.incarnation AND s.error = '' AND s.sampled_at <= %(to)s
  ORDER BY s.sampled_at DESC LIMIT 1
) l ON true
JOIN LATERAL (
  (SELECT s.*, 1 AS choice FROM quotas_countersample s
   WHERE s.backend_id = b.id AND s.incarnation = i.incarnation AND s.error = '' AND s.sampled_at <= %(from)s
   ORDER BY s.sampled_at DESC LIMIT 1)
  UNION ALL
  (SELECT s.*, 2 FROM quotas_countersample s
   WHERE s.backend_id = b.id AND s.incarnation = i.incarnation AND s.error = ''
   ORDER BY s.sampled_at LIMIT 1)
  ORDER BY choice LIMIT 1
) f ON true
ORDER BY b.code, i.incarnation DESC
