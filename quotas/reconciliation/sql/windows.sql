-- Throws away what is no longer needed: of samples older than two days stay the first and the last of each
-- incarnation and the last of each hour, for ninety days; and all that a window stands on that is not closed.
-- Answers how many rows went.
CREATE OR REPLACE FUNCTION quotas_thin_counter_samples() RETURNS bigint LANGUAGE sql AS $$
  WITH old AS (
    SELECT s.id, s.error <> '' AS has_failed, s.sampled_at < now() - interval '90 days' AS is_ancient,
      row_number() OVER (PARTITION BY s.backend_id, s.incarnation, s.error <> '' ORDER BY s.sampled_at) AS from_first,
      row_number() OVER (PARTITION BY s.backend_id, s.incarnation, s.error <> '',
        date_trunc('hour', s.sampled_at, 'UTC') ORDER BY s.sampled_at DESC) AS from_last,
      s.sampled_at = max(s.sampled_at) FILTER (WHERE s.error = '') OVER (PARTITION BY s.backend_id) AS is_newest
    FROM quotas_countersample s
  ), gone AS (
    DELETE FROM quotas_countersample s USING old
    WHERE s.id = old.id AND s.sampled_at < now() - interval '2 days' AND NOT coalesce(old.is_newest, false)
      AND (old.has_failed OR old.is_ancient OR (old.from_first > 1 AND old.from_last > 1))
      AND NOT EXISTS (SELECT 1 FROM quotas_controlwindow w WHERE w.backend_id = s.backend_id AND w.state <> 'CLOSED'
        AND w.incarnation = s.incarnation AND s.sampled_at BETWEEN w.from_at AND w.to_at)
    RETURNING 1
  )
  SELECT count(*) FROM gone
$$;
