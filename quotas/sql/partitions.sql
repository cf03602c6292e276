-- Daily partitions by the UUIDv7 id of a request or attempt: the bound is a function of the id, so the
-- primary key stays unique over all partitions.

CREATE FUNCTION quotas_partition_bound(p_day date) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT rpad(lpad(to_hex((extract(epoch FROM p_day::timestamp) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

-- Makes the partitions from yesterday to p_days ahead and answers how many were new. Runs with the
-- owner's rights, because only the owner may create tables; partitions get no grants of their own.
CREATE FUNCTION quotas_make_partitions(p_days int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  v_table text;
  v_day date;
  v_name text;
  v_made int := 0;
BEGIN
  IF p_days NOT BETWEEN 0 AND 400 THEN
    RAISE EXCEPTION 'p_days must be from 0 to 400';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('quotas_make_partitions'));
  FOREACH v_table IN ARRAY ARRAY['quotas_inferencerequest', 'quotas_attempt', 'quotas_hold', 'quotas_usagerecord'] LOOP
    FOR v_day IN SELECT d::date FROM generate_series(
        (now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + p_days, interval '1 day') d LOOP
      v_name := v_table || '_' || to_char(v_day, 'YYYYMMDD');
      IF to_regclass('public.' || v_name) IS NULL THEN
        -- Attaching, other than CREATE TABLE … PARTITION OF, waits for no reader and stops none.
        EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
          v_name, v_table);
        EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
          v_table, v_name, public.quotas_partition_bound(v_day), public.quotas_partition_bound(v_day + 1));
        v_made := v_made + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN v_made;
END $$;
