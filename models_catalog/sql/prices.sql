-- The pricing functions: the only place where tokens become money.

-- Cost of p_units at p_price nano-units per million, rounded half up. Splitting the price keeps the
-- products inside 64 bits for every price and context size that the constraints allow.
CREATE FUNCTION catalog_line_cost(p_units bigint, p_price bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT p_units * (p_price / 1000000) + (p_units * (p_price % 1000000) + 500000) / 1000000
$$;

-- The same, rounded up: for holds.
CREATE FUNCTION catalog_line_ceiling(p_units bigint, p_price bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT p_units * (p_price / 1000000) + (p_units * (p_price % 1000000) + 999999) / 1000000
$$;

-- The published version for a tenant at a moment; a tenant's private price beats the list.
CREATE FUNCTION catalog_version_at(p_model uuid, p_tenant uuid, p_currency text, p_at timestamptz)
RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT v.id FROM models_catalog_priceversion v
  WHERE v.model_id = p_model AND v.currency = p_currency AND v.published_at IS NOT NULL
    AND (v.tenant_id IS NULL OR v.tenant_id = p_tenant)
    AND v.active_from <= p_at AND (v.active_to IS NULL OR p_at < v.active_to)
  ORDER BY v.tenant_id IS NULL LIMIT 1
$$;

-- The window of a version that is open at a moment, in the version's own time zone; null outside all.
CREATE FUNCTION catalog_window_at(p_version uuid, p_at timestamptz)
RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT s.window_id
  FROM models_catalog_priceversion v
  JOIN models_catalog_pricewindowspan s ON s.version_id = v.id
  WHERE v.id = p_version
    AND s.minutes @> (
      (extract(isodow FROM p_at AT TIME ZONE v.time_zone)::int - 1) * 1440
      + extract(hour FROM p_at AT TIME ZONE v.time_zone)::int * 60
      + extract(minute FROM p_at AT TIME ZONE v.time_zone)::int)
$$;

-- The line that each token class is charged with at one input length. A class without a line of its
-- own is charged as the class that contains it; the class decides before the window does.
CREATE FUNCTION catalog_chosen_lines(p_version uuid, p_tier text, p_window uuid, p_input bigint)
RETURNS TABLE (token_class text, line_id uuid, price_nanos_per_million bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT DISTINCT ON (c.token_class) c.token_class, l.id, l.price_nanos_per_million
  FROM (VALUES
      ('input', 'input', 1),
      ('cached_input', 'cached_input', 1), ('cached_input', 'input', 2),
      ('image', 'image', 1), ('image', 'input', 2),
      ('output', 'output', 1),
      ('reasoning', 'reasoning', 1), ('reasoning', 'output', 2),
      ('request', 'request', 1)
    ) AS c(token_class, line_class, rank)
  JOIN models_catalog_priceline l ON l.version_id = p_version AND l.token_class = c.line_class
  WHERE l.service_tier = p_tier
    AND (l.window_id IS NULL OR l.window_id = p_window)
    AND l.input_from_tokens <= p_input AND (l.input_to_tokens IS NULL OR p_input < l.input_to_tokens)
  ORDER BY c.token_class, c.rank, l.window_id IS NULL
$$;

-- How a usage is charged, line by line. A line without a price has a null amount.
CREATE FUNCTION catalog_usage_lines(
  p_version uuid, p_tier text, p_window uuid,
  p_prompt bigint, p_cached bigint, p_image bigint, p_completion bigint, p_reasoning bigint)
RETURNS TABLE (token_class text, units bigint, line_id uuid, price_nanos_per_million bigint, amount_nanos bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT u.token_class, u.units, l.line_id, l.price_nanos_per_million,
         catalog_line_cost(u.units, l.price_nanos_per_million)
  FROM (VALUES
      ('input', p_prompt - p_cached - p_image),
      ('cached_input', p_cached),
      ('image', p_image),
      ('output', p_completion - p_reasoning),
      ('reasoning', p_reasoning),
      ('request', 1::bigint)
    ) AS u(token_class, units)
  LEFT JOIN catalog_chosen_lines(p_version, p_tier, p_window, p_prompt) l ON l.token_class = u.token_class
  WHERE u.units > 0 AND (u.token_class <> 'request' OR l.line_id IS NOT NULL)
$$;

-- The sum of the lines; null when a line has no price.
CREATE FUNCTION catalog_usage_cost(
  p_version uuid, p_tier text, p_window uuid,
  p_prompt bigint, p_cached bigint, p_image bigint, p_completion bigint, p_reasoning bigint)
RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN bool_or(amount_nanos IS NULL) THEN NULL ELSE coalesce(sum(amount_nanos), 0)::bigint END
  FROM catalog_usage_lines(p_version, p_tier, p_window, p_prompt, p_cached, p_image, p_completion, p_reasoning)
$$;

-- The dearest prices that a call can reach whose prompt has at most p_bound tokens: every input length
-- at which a line begins or ends is tried. Null when input or output has no price.
CREATE FUNCTION catalog_hold_prices(p_version uuid, p_tier text, p_window uuid, p_bound bigint,
  OUT prompt_price bigint, OUT output_price bigint, OUT request_price bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT max(l.price_nanos_per_million) FILTER (WHERE l.token_class IN ('input', 'cached_input', 'image')),
         max(l.price_nanos_per_million) FILTER (WHERE l.token_class IN ('output', 'reasoning')),
         coalesce(max(l.price_nanos_per_million) FILTER (WHERE l.token_class = 'request'), 0)
  FROM (SELECT 0::bigint AS input_tokens
        UNION SELECT input_from_tokens FROM models_catalog_priceline
          WHERE version_id = p_version AND input_from_tokens <= p_bound
        UNION SELECT input_to_tokens FROM models_catalog_priceline
          WHERE version_id = p_version AND input_to_tokens <= p_bound) AS b
  CROSS JOIN LATERAL catalog_chosen_lines(p_version, p_tier, p_window, b.input_tokens) l
$$;

-- The hold of a call: no usage within the bounds can cost more. Three prompt classes and two output
-- classes round separately, each by at most half a nano-unit, hence the two extra nano-units.
CREATE FUNCTION catalog_hold_amount(
  p_prompt_bound bigint, p_output_bound bigint, p_prompt_price bigint, p_output_price bigint, p_request_price bigint)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT catalog_line_ceiling(p_prompt_bound, p_prompt_price)
       + catalog_line_ceiling(p_output_bound, p_output_price)
       + catalog_line_cost(1, p_request_price)
       + CASE WHEN p_prompt_price > 0 THEN 1 ELSE 0 END
       + CASE WHEN p_output_price > 0 THEN 1 ELSE 0 END
$$;
