-- Curves are measurements: they are written once. Gateways load the newest, so each raises the revision.

-- Whether the columns are 1 to 64 whole points by rising concurrency, with sensible numbers.
CREATE FUNCTION catalog_curve_is_sound(
  p_concurrency int[], p_ttft_p50_ms int[], p_ttft_p95_ms int[], p_inter_token_us int[], p_tokens_per_s float8[]
) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT count(*) BETWEEN 1 AND 64 AND coalesce(bool_and(coalesce(
    c.concurrency >= 1 AND (c.place = 1 OR c.concurrency > c.before)
    AND c.p50 >= 0 AND c.p95 >= c.p50 AND c.between_us >= 1 AND c.per_s > 0 AND c.per_s < 'infinity', false
  )), false)
  FROM (
    SELECT place, concurrency, lag(concurrency) OVER (ORDER BY place) AS before, p50, p95, between_us, per_s
    FROM unnest(p_concurrency, p_ttft_p50_ms, p_ttft_p95_ms, p_inter_token_us, p_tokens_per_s)
      WITH ORDINALITY AS point(concurrency, p50, p95, between_us, per_s, place)
  ) c
$$;

ALTER TABLE models_catalog_deploymentcurve ADD CONSTRAINT curve_sound CHECK (
  catalog_curve_is_sound(concurrency, ttft_p50_ms, ttft_p95_ms, inter_token_us, output_tokens_per_s)
);

CREATE FUNCTION catalog_guard_curve() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'curve % is a measurement and stays as it is; measure again', OLD.id USING ERRCODE = '23001';
END $$;
CREATE TRIGGER catalog_guard_curve BEFORE UPDATE OR DELETE ON models_catalog_deploymentcurve
  FOR EACH ROW EXECUTE FUNCTION catalog_guard_curve();

CREATE TRIGGER catalog_raise_revision AFTER INSERT ON models_catalog_deploymentcurve
  FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_revision();

-- What the energy of a million weighted tokens costs at a deployment now: power × its share of it ÷ tokens a
-- second. Gateways choose the cheaper of equally good ones by it; what it is made of is not theirs to read.
CREATE FUNCTION catalog_energy_costs() RETURNS TABLE (deployment_id uuid, currency varchar, nanos bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT d.id, p.currency, round(
    p.power_watts::numeric * p.pue_thousandths * p.energy_nanos_per_kwh * c.reserved_ppm
    / c.capacity_tokens_per_s / 3600000000)::bigint
  FROM models_catalog_capacityversion c
  JOIN models_catalog_deployment d ON d.id = c.deployment_id
  JOIN models_catalog_servingbackend b ON b.id = d.backend_id
  JOIN models_catalog_poolcostversion p ON p.pool_id = b.pool_id
    AND p.active_from <= now() AND (p.active_to IS NULL OR p.active_to > now())
  WHERE c.reserved_ppm > 0 AND c.active_from <= now() AND (c.active_to IS NULL OR c.active_to > now())
$$;
