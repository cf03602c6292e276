-- The choice of a price, as sets: what reads it for a batch is planned once, with the choice inside, where a call
-- of a function for each row costs more than the choice itself. The functions for one call answer the same.

-- The published version for a tenant at a moment; a tenant's private price beats the list.
CREATE FUNCTION catalog_versions_at(p_model uuid, p_tenant uuid, p_currency text, p_at timestamptz)
RETURNS TABLE (version_id uuid, time_zone text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT v.id, v.time_zone FROM models_catalog_priceversion v
  WHERE v.model_id = p_model AND v.currency = p_currency AND v.published_at IS NOT NULL
    AND (v.tenant_id IS NULL OR v.tenant_id = p_tenant)
    AND v.active_from <= p_at AND (v.active_to IS NULL OR p_at < v.active_to)
  ORDER BY v.tenant_id IS NULL LIMIT 1
$$;
CREATE OR REPLACE FUNCTION catalog_version_at(p_model uuid, p_tenant uuid, p_currency text, p_at timestamptz)
RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT version_id FROM catalog_versions_at(p_model, p_tenant, p_currency, p_at)
$$;

-- The window of a version that is open at a moment, in the version's own time zone; no row outside all.
CREATE FUNCTION catalog_windows_at(p_version uuid, p_time_zone text, p_at timestamptz)
RETURNS TABLE (window_id uuid) LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT s.window_id FROM models_catalog_pricewindowspan s
  WHERE s.version_id = p_version
    AND s.minutes @> (
      (extract(isodow FROM p_at AT TIME ZONE p_time_zone)::int - 1) * 1440
      + extract(hour FROM p_at AT TIME ZONE p_time_zone)::int * 60
      + extract(minute FROM p_at AT TIME ZONE p_time_zone)::int)
$$;
CREATE OR REPLACE FUNCTION catalog_window_at(p_version uuid, p_at timestamptz)
RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT w.window_id
  FROM models_catalog_priceversion v CROSS JOIN LATERAL catalog_windows_at(v.id, v.time_zone, p_at) w
  WHERE v.id = p_version
$$;

-- The dearest prices that a call can reach, by the bound of its prompt: each row counts for bounds from from_tokens
-- on, until the next one. Every input length at which a line begins or ends is tried. Null when input or output has
-- no price.
CREATE FUNCTION catalog_hold_steps(p_version uuid, p_tier text, p_window uuid)
RETURNS TABLE (from_tokens bigint, prompt_price bigint, output_price bigint, request_price bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT b.input_tokens,
    max(max(l.price_nanos_per_million) FILTER (WHERE l.token_class IN ('input', 'cached_input', 'image'))) OVER upwards,
    max(max(l.price_nanos_per_million) FILTER (WHERE l.token_class IN ('output', 'reasoning'))) OVER upwards,
    coalesce(max(max(l.price_nanos_per_million) FILTER (WHERE l.token_class = 'request')) OVER upwards, 0)
  FROM (SELECT 0::bigint AS input_tokens
        UNION SELECT input_from_tokens FROM models_catalog_priceline WHERE version_id = p_version
        UNION SELECT input_to_tokens FROM models_catalog_priceline
          WHERE version_id = p_version AND input_to_tokens IS NOT NULL) AS b
  CROSS JOIN LATERAL catalog_chosen_lines(p_version, p_tier, p_window, b.input_tokens) l
  GROUP BY b.input_tokens
  WINDOW upwards AS (ORDER BY b.input_tokens)
$$;
CREATE OR REPLACE FUNCTION catalog_hold_prices(p_version uuid, p_tier text, p_window uuid, p_bound bigint,
  OUT prompt_price bigint, OUT output_price bigint, OUT request_price bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT max(s.prompt_price), max(s.output_price), coalesce(max(s.request_price), 0)
  FROM catalog_hold_steps(p_version, p_tier, p_window) s WHERE s.from_tokens <= p_bound
$$;

-- The sum of the lines of a usage, as a set of one row; null when a line has no price.
CREATE FUNCTION catalog_usage_costs(
  p_version uuid, p_tier text, p_window uuid,
  p_prompt bigint, p_cached bigint, p_image bigint, p_completion bigint, p_reasoning bigint)
RETURNS TABLE (cost_nanos bigint) LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN bool_or(amount_nanos IS NULL) THEN NULL ELSE coalesce(sum(amount_nanos), 0)::bigint END
  FROM catalog_usage_lines(p_version, p_tier, p_window, p_prompt, p_cached, p_image, p_completion, p_reasoning)
$$;
CREATE OR REPLACE FUNCTION catalog_usage_cost(
  p_version uuid, p_tier text, p_window uuid,
  p_prompt bigint, p_cached bigint, p_image bigint, p_completion bigint, p_reasoning bigint)
RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT cost_nanos
  FROM catalog_usage_costs(p_version, p_tier, p_window, p_prompt, p_cached, p_image, p_completion, p_reasoning)
$$;
