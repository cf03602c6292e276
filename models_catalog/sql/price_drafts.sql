-- Published prices stay what they are, down to who drafted and who published them.
CREATE OR REPLACE FUNCTION catalog_guard_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_gap text;
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.published_at IS NOT NULL THEN
      RAISE EXCEPTION 'price version % is published and cannot be deleted', OLD.id USING ERRCODE = '23001';
    END IF;
    RETURN OLD;
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.published_at IS NOT NULL THEN
    IF (NEW.id, NEW.model_id, NEW.tenant_id, NEW.currency, NEW.time_zone, NEW.active_from, NEW.published_at,
        NEW.created_at, NEW.created_by_id, NEW.published_by_id)
       IS DISTINCT FROM
       (OLD.id, OLD.model_id, OLD.tenant_id, OLD.currency, OLD.time_zone, OLD.active_from, OLD.published_at,
        OLD.created_at, OLD.created_by_id, OLD.published_by_id)
       OR (NEW.active_to IS DISTINCT FROM OLD.active_to
           AND (OLD.active_to <= now() OR NEW.active_to IS NULL OR NEW.active_to < now()))
    THEN
      RAISE EXCEPTION 'price version % is published; only an end that has not passed may be set', OLD.id
        USING ERRCODE = '23001';
    END IF;
  ELSIF NEW.published_at IS NOT NULL THEN
    -- A name of the list: PostgreSQL takes POSIX forms as well, where UTC+8 lies west of Greenwich.
    IF NOT EXISTS (SELECT 1 FROM pg_timezone_names WHERE name = NEW.time_zone) THEN
      RAISE EXCEPTION '% is not a time zone', NEW.time_zone USING ERRCODE = '22023';
    END IF;
    SELECT string_agg(t.service_tier || '/' || c.token_class, ', ') INTO v_gap
    FROM (SELECT DISTINCT service_tier FROM models_catalog_priceline WHERE version_id = NEW.id
          UNION SELECT 'standard') t
    CROSS JOIN (VALUES ('input'), ('output')) AS c(token_class)
    WHERE '{[0,)}'::int8multirange IS DISTINCT FROM (
      SELECT range_agg(int8range(l.input_from_tokens, l.input_to_tokens))
      FROM models_catalog_priceline l
      WHERE l.version_id = NEW.id AND l.service_tier = t.service_tier
        AND l.token_class = c.token_class AND l.window_id IS NULL);
    IF v_gap IS NOT NULL THEN
      RAISE EXCEPTION 'price version % has no price for every input length: %', NEW.id, v_gap USING ERRCODE = '23514';
    END IF;
  END IF;
  RETURN NEW;
END $$;

-- What an operator publishes or ends does so at a moment that lies ahead when the change commits. A call is
-- priced at a moment read before the prices are, so whoever is admitted at or after that moment sees the
-- change, and whoever is admitted earlier finds the version that counted then. The setting says that the
-- transaction promises this; a catalog file, which may publish from now on, does not.
CREATE FUNCTION catalog_change_ahead() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_reached timestamptz := clock_timestamp() + interval '250 milliseconds';
BEGIN
  IF NEW.published_at IS NULL OR coalesce(current_setting('app.prices_ahead', true), '') <> 'on' THEN
    RETURN NULL;
  END IF;
  IF (OLD.published_at IS NULL AND NEW.active_from <= v_reached)
     OR (NEW.active_to IS DISTINCT FROM OLD.active_to AND NEW.active_to <= v_reached) THEN
    RAISE EXCEPTION 'price version % would change at a moment that is about to pass', NEW.id
      USING ERRCODE = '23514', CONSTRAINT = 'price_change_ahead';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER catalog_change_ahead AFTER UPDATE ON models_catalog_priceversion
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog_change_ahead();
