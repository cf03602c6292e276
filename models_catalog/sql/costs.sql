-- What pools cost and what deployments have of them: no overlaps, no edits, never more than the whole pool.

ALTER TABLE models_catalog_poolcostversion ADD CONSTRAINT poolcost_no_overlap EXCLUDE USING gist (
  pool_id WITH =, tstzrange(active_from, active_to) WITH &&
);
ALTER TABLE models_catalog_capacityversion ADD CONSTRAINT capacity_no_overlap EXCLUDE USING gist (
  deployment_id WITH =, tstzrange(active_from, active_to) WITH &&
);

-- Costs are for whole seconds, so periods begin and end on them.
ALTER TABLE models_catalog_poolcostversion ADD CONSTRAINT poolcost_whole_seconds CHECK (
  extract(microseconds FROM active_from AT TIME ZONE 'UTC')::int % 1000000 = 0
  AND coalesce(extract(microseconds FROM active_to AT TIME ZONE 'UTC')::int % 1000000 = 0, true)
);
ALTER TABLE models_catalog_capacityversion ADD CONSTRAINT capacity_whole_seconds CHECK (
  extract(microseconds FROM active_from AT TIME ZONE 'UTC')::int % 1000000 = 0
  AND coalesce(extract(microseconds FROM active_to AT TIME ZONE 'UTC')::int % 1000000 = 0, true)
);

-- A version may only be given an end that has not passed. An end at its own beginning withdraws one that
-- has not begun.
CREATE FUNCTION catalog_guard_dated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION '% % cannot be deleted; give it an end', TG_TABLE_NAME, OLD.id USING ERRCODE = '23001';
  END IF;
  IF (to_jsonb(NEW) - 'active_to') IS DISTINCT FROM (to_jsonb(OLD) - 'active_to')
     OR (NEW.active_to IS DISTINCT FROM OLD.active_to
         AND (OLD.active_to <= now() OR NEW.active_to IS NULL OR NEW.active_to < now()))
  THEN
    RAISE EXCEPTION '% % is frozen; only an end that has not passed may be set', TG_TABLE_NAME, OLD.id
      USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalog_guard_dated BEFORE UPDATE OR DELETE ON models_catalog_poolcostversion
  FOR EACH ROW EXECUTE FUNCTION catalog_guard_dated();
CREATE TRIGGER catalog_guard_dated BEFORE UPDATE OR DELETE ON models_catalog_capacityversion
  FOR EACH ROW EXECUTE FUNCTION catalog_guard_dated();

-- Refuses more than the whole pool at any moment. The sum only rises where a version begins, so those
-- moments are all that is looked at. The lock makes two writers of one pool wait for each other; the
-- second then sees what the first has committed.
CREATE FUNCTION catalog_check_shares(p_pool uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_moment timestamptz;
  v_sum bigint;
BEGIN
  PERFORM 1 FROM models_catalog_servingpool WHERE id = p_pool FOR NO KEY UPDATE;
  WITH versions AS MATERIALIZED (
    SELECT c.reserved_ppm, c.active_from, c.active_to
    FROM models_catalog_capacityversion c
    JOIN models_catalog_deployment d ON d.id = c.deployment_id
    JOIN models_catalog_servingbackend b ON b.id = d.backend_id
    WHERE b.pool_id = p_pool AND c.reserved_ppm > 0 AND NOT isempty(tstzrange(c.active_from, c.active_to))
  )
  SELECT v.active_from, sum(w.reserved_ppm) INTO v_moment, v_sum
  FROM (SELECT DISTINCT active_from FROM versions) v
  JOIN versions w ON w.active_from <= v.active_from AND (w.active_to IS NULL OR w.active_to > v.active_from)
  GROUP BY v.active_from
  HAVING sum(w.reserved_ppm) > 1000000
  ORDER BY v.active_from
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'from % on % of 1000000 parts of pool % would be reserved', v_moment, v_sum, p_pool
      USING ERRCODE = '23514', CONSTRAINT = 'capacity_pool_not_oversold';
  END IF;
END $$;

CREATE FUNCTION catalog_guard_shares() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_pool uuid;
BEGIN
  IF TG_TABLE_NAME = 'models_catalog_servingbackend' THEN
    v_pool := NEW.pool_id;
  ELSIF TG_TABLE_NAME = 'models_catalog_deployment' THEN
    SELECT pool_id INTO v_pool FROM models_catalog_servingbackend WHERE id = NEW.backend_id;
  ELSE
    SELECT b.pool_id INTO v_pool
    FROM models_catalog_deployment d JOIN models_catalog_servingbackend b ON b.id = d.backend_id
    WHERE d.id = NEW.deployment_id;
  END IF;
  PERFORM catalog_check_shares(v_pool);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER catalog_guard_shares AFTER INSERT OR UPDATE ON models_catalog_capacityversion
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog_guard_shares();
CREATE CONSTRAINT TRIGGER catalog_guard_shares AFTER UPDATE OF pool_id ON models_catalog_servingbackend
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.pool_id <> NEW.pool_id)
  EXECUTE FUNCTION catalog_guard_shares();
CREATE CONSTRAINT TRIGGER catalog_guard_shares AFTER UPDATE OF backend_id ON models_catalog_deployment
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.backend_id <> NEW.backend_id)
  EXECUTE FUNCTION catalog_guard_shares();

-- What a pool costs in p_seconds (up to a day), and what it is made of. The total is the exact rational
-- rounded half up, once; its parts are rounded down and the units that are missing then go to the
-- largest remainders (on a tie depreciation comes before energy, energy before the rest), so the parts
-- add up to the total.
CREATE FUNCTION catalog_cost_parts(
  p_accelerators bigint, p_depreciation bigint, p_other bigint, p_watts bigint, p_pue bigint, p_energy bigint,
  p_seconds int
) RETURNS TABLE (total_nanos bigint, depreciation_nanos bigint, energy_nanos bigint, other_nanos bigint)
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  c_divisor CONSTANT numeric := 3600000000;
  v_depreciation numeric := p_accelerators::numeric * p_depreciation * 1000000 * p_seconds;
  v_other numeric := p_accelerators::numeric * p_other * 1000000 * p_seconds;
  v_energy numeric := p_watts::numeric * p_pue * p_energy * p_seconds;
BEGIN
  IF p_seconds IS NULL OR p_seconds NOT BETWEEN 0 AND 86400 THEN
    RAISE EXCEPTION 'a cost is for 0 to 86400 seconds, not %', p_seconds USING ERRCODE = '22023';
  END IF;
  total_nanos := div(2 * (v_depreciation + v_other + v_energy) + c_divisor, 2 * c_divisor);
  RETURN QUERY
    WITH parts AS (
      SELECT place, div(exact, c_divisor)::bigint AS nanos,
             row_number() OVER (ORDER BY mod(exact, c_divisor) DESC, place) AS turn
      FROM (VALUES (1, v_depreciation), (2, v_energy), (3, v_other)) AS part(place, exact)
    ), filled AS (
      SELECT place, nanos + (turn <= total_nanos - sum(nanos) OVER ())::int AS nanos FROM parts
    )
    SELECT total_nanos, max(nanos) FILTER (WHERE place = 1), max(nanos) FILTER (WHERE place = 2),
           max(nanos) FILTER (WHERE place = 3)
    FROM filled;
END $$;

CREATE FUNCTION catalog_pool_cost_parts(p_version uuid, p_seconds int)
RETURNS TABLE (total_nanos bigint, depreciation_nanos bigint, energy_nanos bigint, other_nanos bigint)
LANGUAGE sql STABLE AS $$
  SELECT p.total_nanos, p.depreciation_nanos, p.energy_nanos, p.other_nanos
  FROM models_catalog_poolcostversion v
  CROSS JOIN LATERAL catalog_cost_parts(
    v.accelerators, v.depreciation_nanos_per_accelerator_hour, v.other_nanos_per_accelerator_hour,
    v.power_watts, v.pue_thousandths, v.energy_nanos_per_kwh, p_seconds) p
  WHERE v.id = p_version
$$;

-- The same total alone; null for a version that does not exist.
CREATE FUNCTION catalog_pool_cost_nanos(p_version uuid, p_seconds int) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT total_nanos FROM catalog_pool_cost_parts(p_version, p_seconds)
$$;
