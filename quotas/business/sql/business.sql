-- Hours are written as a whole: allocated + idle = cost, for every pool and every deployment, or not at all.

ALTER TABLE quotas_allocatedhour
  ADD CONSTRAINT allocatedhour_whole_hour CHECK (extract(epoch FROM hour)::numeric % 3600 = 0),
  ADD CONSTRAINT allocatedhour_within_hour CHECK (
    covered_until <= hour + interval '1 hour' AND (NOT is_final OR covered_until = hour + interval '1 hour'));
ALTER TABLE quotas_poolhour ADD CONSTRAINT quotas_poolhour_hour_fk
  FOREIGN KEY (hour) REFERENCES quotas_allocatedhour (hour) ON DELETE CASCADE;
ALTER TABLE quotas_deploymenthour ADD CONSTRAINT quotas_deploymenthour_hour_pool_fk
  FOREIGN KEY (hour, pool_id) REFERENCES quotas_poolhour (hour, pool_id) ON DELETE CASCADE;
CREATE INDEX quotas_deploymenthour_hour_pool ON quotas_deploymenthour (hour, pool_id);
ALTER TABLE quotas_businesshour ADD CONSTRAINT quotas_businesshour_hour_deployment_fk
  FOREIGN KEY (hour, deployment_id) REFERENCES quotas_deploymenthour (hour, deployment_id) ON DELETE CASCADE;
-- The currency of what a tenant paid is its own.
ALTER TABLE quotas_businesshour ADD CONSTRAINT quotas_businesshour_tenant_id_currency_fk
  FOREIGN KEY (tenant_id, currency) REFERENCES tenants_tenant (id, currency);

-- An hour of a pool has one currency, so a pool changes its currency at a full hour (UTC) only.
ALTER TABLE models_catalog_poolcostversion ADD CONSTRAINT poolcost_one_currency_an_hour EXCLUDE USING gist (
  pool_id WITH =, currency WITH <>,
  tsrange(date_trunc('hour', active_from AT TIME ZONE 'UTC'),
          date_trunc('hour', active_to AT TIME ZONE 'UTC' + interval '3599 seconds')) WITH &&
) WHERE (active_to IS NULL OR active_to > active_from);

-- At the end of the transaction, for the pools and deployments that it wrote.
CREATE FUNCTION quotas_check_pool_hour() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  r record;
BEGIN
  IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
  PERFORM 1 FROM quotas_poolhour p
  WHERE p.hour = r.hour AND p.pool_id = r.pool_id
    AND p.cost_nanos <> p.unreserved_nanos
      + (SELECT coalesce(sum(d.cost_nanos), 0) FROM quotas_deploymenthour d
         WHERE d.hour = p.hour AND d.pool_id = p.pool_id);
  IF FOUND THEN
    RAISE EXCEPTION 'the parts of pool % in the hour % are not its cost', r.pool_id, r.hour
      USING ERRCODE = '23514', CONSTRAINT = 'poolhour_adds_up';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER adds_up AFTER INSERT ON quotas_poolhour
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_pool_hour();
CREATE CONSTRAINT TRIGGER pool_adds_up AFTER INSERT OR DELETE ON quotas_deploymenthour
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_pool_hour();

CREATE FUNCTION quotas_check_deployment_hour() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM quotas_deploymenthour d
  WHERE d.hour = NEW.hour AND d.deployment_id = NEW.deployment_id
    AND (d.cost_nanos - d.idle_nanos, d.weighted) <>
      (SELECT coalesce(sum(b.cost_nanos), 0), coalesce(sum(b.weighted), 0) FROM quotas_businesshour b
       WHERE b.hour = d.hour AND b.deployment_id = d.deployment_id);
  IF FOUND THEN
    RAISE EXCEPTION 'the requests of deployment % in the hour % are not what it sold', NEW.deployment_id, NEW.hour
      USING ERRCODE = '23514', CONSTRAINT = 'deploymenthour_adds_up';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER adds_up AFTER INSERT ON quotas_deploymenthour
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_deployment_hour();

-- There are many of these rows, so they are looked at by the statement: the rows of a deployment's hour come
-- together. Where the hour itself is gone, they went with it.
CREATE FUNCTION quotas_check_business_hours() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_deployment uuid;
BEGIN
  SELECT d.deployment_id INTO v_deployment
  FROM (SELECT DISTINCT hour, deployment_id FROM changed) c
  JOIN quotas_deploymenthour d ON d.hour = c.hour AND d.deployment_id = c.deployment_id
  WHERE (d.cost_nanos - d.idle_nanos, d.weighted) <>
    (SELECT coalesce(sum(b.cost_nanos), 0), coalesce(sum(b.weighted), 0) FROM quotas_businesshour b
     WHERE b.hour = d.hour AND b.deployment_id = d.deployment_id)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'what the requests of deployment % cost in an hour is not what it sold', v_deployment
      USING ERRCODE = '23514', CONSTRAINT = 'businesshour_adds_up';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER adds_up_after_insert AFTER INSERT ON quotas_businesshour
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION quotas_check_business_hours();
CREATE TRIGGER adds_up_after_delete AFTER DELETE ON quotas_businesshour
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION quotas_check_business_hours();

CREATE TRIGGER never_edited BEFORE UPDATE ON quotas_allocatedhour
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
CREATE TRIGGER never_edited BEFORE UPDATE ON quotas_poolhour
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
CREATE TRIGGER never_edited BEFORE UPDATE ON quotas_deploymenthour
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
CREATE TRIGGER never_edited BEFORE UPDATE ON quotas_businesshour
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
