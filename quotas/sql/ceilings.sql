-- The largest output cap per choice, of at most p_cap, with which a call cannot cost more than p_ceiling: the hold of
-- that cap is within it, the hold of one token more is not. Null when not even one token of output fits, or the
-- prompt alone where no output was asked for.
CREATE FUNCTION quotas_cap_within(
  p_ceiling bigint, p_prompt_bound bigint, p_choices int, p_cap bigint,
  p_prompt_price bigint, p_output_price bigint, p_request_price bigint)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN f.floor_nanos <= p_ceiling AND c.cap >= least(1, p_cap) THEN c.cap END
  FROM (SELECT catalog_hold_amount(p_prompt_bound, 0, p_prompt_price, p_output_price, p_request_price)) AS f(floor_nanos)
  CROSS JOIN LATERAL (SELECT CASE WHEN p_output_price = 0 THEN p_cap ELSE least(p_cap, greatest(0, div(
    (p_ceiling - f.floor_nanos)::numeric * 1000000, p_output_price::numeric * p_choices)))::bigint END) AS c(cap)
$$;

-- What is billed of a usage: everything that was delivered, the input alone, or nothing. Null when a line has no price.
CREATE FUNCTION quotas_billed_cost(
  p_billed text, p_version uuid, p_tier text, p_window uuid,
  p_prompt bigint, p_cached bigint, p_image bigint, p_completion bigint, p_reasoning bigint)
RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE p_billed
    WHEN 'DELIVERED' THEN
      catalog_usage_cost(p_version, p_tier, p_window, p_prompt, p_cached, p_image, p_completion, p_reasoning)
    WHEN 'INPUT' THEN catalog_usage_cost(p_version, p_tier, p_window, p_prompt, p_cached, p_image, 0, 0)
    WHEN 'NOTHING' THEN 0 END
$$;
