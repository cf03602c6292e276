-- Limits: what applies to an organization at a moment. Admission, the gateway's rates and the pages ask the
-- same function.

ALTER TABLE quotas_tierassignment ADD CONSTRAINT tierassignment_no_overlap EXCLUDE USING gist (
  tenant_id WITH =, (is_automatic::int) WITH =, tstzrange(starts_at, ends_at) WITH &&
);
ALTER TABLE quotas_limit ADD CONSTRAINT limit_no_overlap EXCLUDE USING gist (
  tenant_id WITH =, kind WITH =, origin WITH =,
  coalesce(model_id, '00000000-0000-0000-0000-000000000000'::uuid) WITH =,
  coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'::uuid) WITH =,
  tstzrange(starts_at, ends_at) WITH &&
);

-- Thresholds are percentages from 1 to 100, ascending, five at most.
ALTER TABLE quotas_limit ADD CONSTRAINT limit_alert_percents CHECK (
  cardinality(alert_percents) <= 5 AND 1 <= ALL (alert_percents) AND 100 >= ALL (alert_percents)
  AND coalesce(alert_percents[1] < alert_percents[2], true) AND coalesce(alert_percents[2] < alert_percents[3], true)
  AND coalesce(alert_percents[3] < alert_percents[4], true) AND coalesce(alert_percents[4] < alert_percents[5], true)
);
-- What is watched for alerts, and what organizations have paid in all, without reading everything else.
CREATE INDEX limit_alerts ON quotas_limit (tenant_id) WHERE alert_percents <> '{}';
CREATE INDEX transfer_top_ups ON quotas_ledgertransfer (tenant_id) WHERE kind = 'TOP_UP';

-- A period may be given an end, at most once to an earlier moment; nothing else of these rows changes.
CREATE FUNCTION quotas_guard_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION '% rows are ended, not deleted', TG_TABLE_NAME USING ERRCODE = '23001';
  END IF;
  IF to_jsonb(NEW) - 'ends_at' IS DISTINCT FROM to_jsonb(OLD) - 'ends_at' OR NEW.ends_at IS NULL
     OR (OLD.ends_at IS NOT NULL AND NEW.ends_at > OLD.ends_at) THEN
    RAISE EXCEPTION '% rows are not changed; only an end may be set', TG_TABLE_NAME USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_period BEFORE UPDATE OR DELETE ON quotas_tierassignment
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_period();
CREATE TRIGGER guard_period BEFORE UPDATE OR DELETE ON quotas_limit
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_period();

INSERT INTO quotas_limitrevision (id, revision) VALUES (1, 1);
CREATE FUNCTION quotas_raise_limit_revision() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE quotas_limitrevision SET revision = revision + 1 WHERE id = 1;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION quotas_raise_limit_revision() FROM PUBLIC;

-- The tier of an organization: an operator's assignment, else the automatic one, else the default tier.
CREATE FUNCTION quotas_tier_at(p_tenant uuid, p_at timestamptz) RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT coalesce(
    (SELECT a.tier_id FROM quotas_tierassignment a
     WHERE a.tenant_id = p_tenant AND a.starts_at <= p_at AND (a.ends_at IS NULL OR p_at < a.ends_at)
     ORDER BY a.is_automatic LIMIT 1),
    (SELECT t.id FROM quotas_tier t WHERE t.is_default))
$$;

-- Every hard ceiling of an organization at a moment, one row a scope and kind. The zero UUID stands for all
-- models and all keys. `source` names whose value it is: TIER, OPERATOR or TENANT; `is_own_only`: neither tier nor
-- operator set one, so what the installation allows counts as well.
CREATE FUNCTION quotas_effective_limits(p_tenant uuid, p_at timestamptz)
RETURNS TABLE (model_id uuid, api_key_id uuid, kind text, value bigint, source text, is_own_only boolean)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  WITH granted AS (
    SELECT l.model_id, l.api_key_id, l.kind::text AS kind, l.value, l.origin::text AS origin
    FROM quotas_limit l
    WHERE l.tenant_id = p_tenant AND l.is_hard AND l.starts_at <= p_at AND (l.ends_at IS NULL OR p_at < l.ends_at)
    UNION ALL
    SELECT l.model_id, NULL, l.kind, l.value, 'TIER'
    FROM quotas_tierlimit l
    WHERE l.tier_id = quotas_tier_at(p_tenant, p_at)
      AND l.currency IN ('', (SELECT w.currency FROM quotas_wallet w WHERE w.tenant_id = p_tenant))
  ), scopes AS (
    SELECT coalesce(g.model_id, '00000000-0000-0000-0000-000000000000'::uuid) AS model_id,
      coalesce(g.api_key_id, '00000000-0000-0000-0000-000000000000'::uuid) AS api_key_id, g.kind,
      max(g.value) FILTER (WHERE g.origin = 'TIER') AS of_tier,
      max(g.value) FILTER (WHERE g.origin = 'OPERATOR') AS of_operator,
      max(g.value) FILTER (WHERE g.origin = 'TENANT') AS of_tenant
    FROM granted g GROUP BY 1, 2, 3
  )
  SELECT s.model_id, s.api_key_id, s.kind, least(coalesce(s.of_operator, s.of_tier), s.of_tenant),
    CASE WHEN s.of_tenant <= coalesce(s.of_operator, s.of_tier, s.of_tenant) THEN 'TENANT'
         WHEN s.of_operator IS NOT NULL THEN 'OPERATOR' ELSE 'TIER' END,
    coalesce(s.of_operator, s.of_tier) IS NULL
  FROM scopes s
$$;
