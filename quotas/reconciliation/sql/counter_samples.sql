-- Within one incarnation counters only rise, and incarnations follow one another: a row that says
-- otherwise was written out of turn. Writers of a backend's samples hold its advisory lock.
CREATE FUNCTION quotas_check_counter_sample() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_last quotas_countersample;
BEGIN
  IF NEW.error <> '' THEN
    RETURN NEW;
  END IF;
  SELECT * INTO v_last FROM quotas_countersample s
  WHERE s.backend_id = NEW.backend_id AND s.error = '' ORDER BY s.sampled_at DESC LIMIT 1;
  IF NOT FOUND THEN
    IF NEW.incarnation <> 1 THEN
      RAISE EXCEPTION 'the first incarnation is number 1' USING ERRCODE = 'check_violation';
    END IF;
  ELSIF NEW.asked_at < v_last.sampled_at OR NEW.incarnation NOT IN (v_last.incarnation, v_last.incarnation + 1) THEN
    RAISE EXCEPTION 'samples of a backend come in their order' USING ERRCODE = 'check_violation';
  ELSIF NEW.incarnation = v_last.incarnation AND (
      NEW.prompt_tokens < v_last.prompt_tokens OR NEW.completion_tokens < v_last.completion_tokens
      OR NEW.cached_tokens < v_last.cached_tokens OR NEW.requests_finished < v_last.requests_finished) THEN
    RAISE EXCEPTION 'a counter fell within one incarnation' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER check_order BEFORE INSERT ON quotas_countersample
  FOR EACH ROW EXECUTE FUNCTION quotas_check_counter_sample();

-- Samples are witnesses: none is changed, and none of the last two days is thinned out.
CREATE FUNCTION quotas_keep_counter_sample() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.sampled_at < now() - interval '2 days' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'counter samples are never changed' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quotas_countersample
  FOR EACH ROW EXECUTE FUNCTION quotas_keep_counter_sample();

-- Throws away what is no longer needed: of samples older than two days stay the first and the last of each
-- incarnation and the last of each hour, for ninety days. Answers how many rows went.
CREATE FUNCTION quotas_thin_counter_samples() RETURNS bigint LANGUAGE sql AS $$
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
    RETURNING 1
  )
  SELECT count(*) FROM gone
$$;
