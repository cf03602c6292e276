-- Which call a hold, a usage record and an attempt belong to, without asking a partitioned table row by row: that
-- took as long as everything else of an admission, because each row's question was planned anew.

-- Holds and usage records lie in the same day as their request, so each day's refer to that day's requests.
CREATE FUNCTION quotas_refer_to_requests(p_table text, p_day text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT %I FOREIGN KEY (request_id, tenant_id) '
    'REFERENCES public.%I (id, tenant_id) NOT VALID',
    p_table || '_' || p_day, p_table || '_' || p_day || '_request_fk', 'quotas_inferencerequest_' || p_day);
END $$;
REVOKE ALL ON FUNCTION quotas_refer_to_requests(text, text) FROM PUBLIC;
-- Rows that are there met the constraint that goes, so they need no reading.
DO $$
DECLARE
  v_table text;
  v_partition text;
BEGIN
  FOREACH v_table IN ARRAY ARRAY['quotas_hold', 'quotas_usagerecord'] LOOP
    FOR v_partition IN SELECT i.inhrelid::regclass::text FROM pg_inherits i
                       WHERE i.inhparent = ('public.' || v_table)::regclass ORDER BY 1 LOOP
      PERFORM quotas_refer_to_requests(v_table, right(v_partition, 8));
    END LOOP;
  END LOOP;
END $$;
ALTER TABLE quotas_hold DROP CONSTRAINT quotas_hold_request_id_tenant_id_fk;
ALTER TABLE quotas_usagerecord DROP CONSTRAINT quotas_usagerecord_request_id_tenant_id_fk;

-- Makes the partitions from yesterday to p_days ahead and answers how many were new. Runs with the
-- owner's rights, because only the owner may create tables; partitions get no grants of their own.
CREATE OR REPLACE FUNCTION quotas_make_partitions(p_days int) RETURNS int
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
        IF v_table IN ('quotas_hold', 'quotas_usagerecord') THEN
          PERFORM public.quotas_refer_to_requests(v_table, to_char(v_day, 'YYYYMMDD'));
        END IF;
        v_made := v_made + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN v_made;
END $$;

-- An attempt can begin on the day after its request's, so all attempts of a statement are looked up together.
CREATE FUNCTION quotas_check_attempts() RETURNS trigger LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  v_calls uuid[];
  v_found bigint;
BEGIN
  SELECT array_agg(DISTINCT i.request_id ORDER BY i.request_id) INTO v_calls FROM inserted i;
  -- Bounds of the ids let the planner leave out the other days' partitions, and so spares their locks.
  SELECT count(*) INTO v_found
  FROM quotas_inferencerequest q JOIN inserted i ON i.request_id = q.id AND i.tenant_id = q.tenant_id
  WHERE q.id = ANY (v_calls) AND q.id BETWEEN v_calls[1] AND v_calls[cardinality(v_calls)];
  IF v_found <> (SELECT count(*) FROM inserted) THEN
    RAISE EXCEPTION 'an attempt is not of a call of its tenant' USING ERRCODE = '23503';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER attempt_of_call AFTER INSERT ON quotas_attempt
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION quotas_check_attempts();
CREATE FUNCTION quotas_refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'whose an attempt is never changes' USING ERRCODE = '23001';
END $$;
CREATE TRIGGER attempt_stays BEFORE UPDATE OF id, request_id, tenant_id ON quotas_attempt
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_move();
ALTER TABLE quotas_attempt DROP CONSTRAINT quotas_attempt_request_id_tenant_id_fk;

-- Nothing that these ask is partitioned, whatever the statement that fires them needs.
ALTER FUNCTION quotas_apply_entries() SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION quotas_apply_new_holds() SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION quotas_apply_resolved_holds() SET plan_cache_mode = force_generic_plan;
