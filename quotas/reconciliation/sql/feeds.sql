-- Makes the partitions from yesterday to p_days ahead, now also of the feeds' records, which lie in the day of
-- their attempt; answers how many were new. Runs with the owner's rights, because only the owner may create
-- tables; partitions get no grants of their own.
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
  FOREACH v_table IN ARRAY ARRAY['quotas_inferencerequest', 'quotas_attempt', 'quotas_hold', 'quotas_usagerecord',
      'quotas_feedrecord'] LOOP
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

-- Closed windows and what was said of them stay as they are.
CREATE FUNCTION quotas_keep_closed_window() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a closed window never changes' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER closed_stays BEFORE UPDATE OR DELETE ON quotas_controlwindow
  FOR EACH ROW WHEN (OLD.state = 'CLOSED') EXECUTE FUNCTION quotas_keep_closed_window();

-- What has been said to be complete stays so.
CREATE FUNCTION quotas_keep_watermark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a watermark never falls' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER never_falls BEFORE UPDATE ON quotas_feedstate
  FOR EACH ROW WHEN (OLD.complete_to IS NOT NULL AND (NEW.complete_to IS NULL OR NEW.complete_to < OLD.complete_to))
  EXECUTE FUNCTION quotas_keep_watermark();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quotas_correction
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
