-- Which of the requests two witnesses agree about: at least one record of a backend counts for them, every one says
-- what the gateway metered, and none is missing of an attempt of which the backend told the gateway its counts.
--
-- Attempts and records are partitioned by day on ids that hold their time, so both are asked for by the range that
-- attempts of these requests can be in: they begin with their call, save retries, and no call lasts six hours.
CREATE FUNCTION quotas_confirmed_of(p_tenant uuid, p_requests uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  v_requests uuid[] := ARRAY(SELECT DISTINCT r.id FROM unnest(p_requests) AS r(id) WHERE r.id IS NOT NULL ORDER BY r.id);
  v_first uuid;
  v_end uuid;
BEGIN
  IF cardinality(v_requests) > 1000 THEN
    RAISE EXCEPTION 'at most 1000 requests are asked about at once' USING ERRCODE = 'program_limit_exceeded';
  ELSIF cardinality(v_requests) = 0 THEN
    RETURN;
  END IF;
  v_first := quotas_id_moved(v_requests[1], interval '-5 minutes');
  v_end := quotas_id_moved(v_requests[cardinality(v_requests)], interval '6 hours');
  RETURN QUERY
    SELECT a.request_id
    FROM quotas_attempt a
    LEFT JOIN LATERAL (
      SELECT count(*) AS records, count(*) FILTER (WHERE f.verdict = 'MATCHED') AS matched
      FROM quotas_feedrecord f
      WHERE f.subject_id = a.id AND f.subject_id >= v_first AND f.subject_id < v_end
        -- Of others' records it is none.
        AND f.verdict <> 'FOREIGN') w ON true
    WHERE a.request_id = ANY (v_requests) AND a.tenant_id = p_tenant AND a.id >= v_first AND a.id < v_end
    GROUP BY a.request_id
    HAVING sum(w.matched) > 0 AND sum(w.matched) = sum(w.records)
      AND bool_and(w.records > 0 OR (a.outcome IS DISTINCT FROM 'COMPLETED' AND a.completion_tokens IS NULL));
END $$;

-- The lowest id of a moment so long before or after the one that an id holds.
CREATE FUNCTION quotas_id_moved(p_id uuid, p_by interval) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT (lpad(to_hex(least(greatest(
    ('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint + (extract(epoch FROM p_by) * 1000)::bigint,
    0), 281474976710655)), 12, '0') || repeat('0', 20))::uuid
$$;

-- The same for an organization, in whose scope it runs: it sees no records, only what they say of its own requests.
CREATE FUNCTION quotas_confirmed(p_requests uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  v_tenant uuid := NULLIF(current_setting('app.tenant_id', true), '')::uuid;
BEGIN
  IF v_tenant IS NOT NULL THEN
    RETURN QUERY SELECT * FROM quotas_confirmed_of(v_tenant, p_requests);
  END IF;
END $$;
