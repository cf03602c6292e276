-- Published prices never overlap and never change; every change of the catalog raises its revision.

ALTER TABLE models_catalog_priceversion ADD CONSTRAINT price_no_overlap EXCLUDE USING gist (
  model_id WITH =, currency WITH =,
  coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'::uuid) WITH =,
  tstzrange(active_from, active_to) WITH &&
) WHERE (published_at IS NOT NULL);

ALTER TABLE models_catalog_pricewindowspan ADD CONSTRAINT span_no_overlap EXCLUDE USING gist (
  version_id WITH =, minutes WITH &&
);

ALTER TABLE models_catalog_priceline ADD CONSTRAINT line_no_overlap EXCLUDE USING gist (
  version_id WITH =, token_class WITH =, service_tier WITH =,
  coalesce(window_id, '00000000-0000-0000-0000-000000000000'::uuid) WITH =,
  int8range(input_from_tokens, input_to_tokens) WITH &&
);

-- Publishing needs, for every tier that has lines, input and output prices for every input length at
-- any time. A published version may only be given an end that has not passed.
CREATE FUNCTION catalog_guard_version() RETURNS trigger LANGUAGE plpgsql AS $$
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
    IF (NEW.id, NEW.model_id, NEW.tenant_id, NEW.currency, NEW.time_zone, NEW.active_from, NEW.published_at, NEW.created_at)
       IS DISTINCT FROM
       (OLD.id, OLD.model_id, OLD.tenant_id, OLD.currency, OLD.time_zone, OLD.active_from, OLD.published_at, OLD.created_at)
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
CREATE TRIGGER catalog_guard_version BEFORE INSERT OR UPDATE OR DELETE ON models_catalog_priceversion
  FOR EACH ROW EXECUTE FUNCTION catalog_guard_version();

CREATE FUNCTION catalog_guard_version_part() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_version uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.version_id ELSE NEW.version_id END;
  v_is_published boolean;
BEGIN
  -- The lock makes whoever writes a part and whoever publishes the version wait for each other; the
  -- foreign key's own lock would let both pass.
  SELECT published_at IS NOT NULL INTO v_is_published
  FROM models_catalog_priceversion WHERE id = v_version FOR SHARE;
  IF v_is_published OR (TG_OP = 'UPDATE' AND OLD.version_id <> NEW.version_id) THEN
    RAISE EXCEPTION 'price version % is published; its parts are frozen', v_version USING ERRCODE = '23001';
  END IF;
  RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER catalog_guard_line BEFORE INSERT OR UPDATE OR DELETE ON models_catalog_priceline
  FOR EACH ROW EXECUTE FUNCTION catalog_guard_version_part();
CREATE TRIGGER catalog_guard_window BEFORE INSERT OR UPDATE OR DELETE ON models_catalog_pricewindow
  FOR EACH ROW EXECUTE FUNCTION catalog_guard_version_part();
CREATE TRIGGER catalog_guard_span BEFORE INSERT OR UPDATE OR DELETE ON models_catalog_pricewindowspan
  FOR EACH ROW EXECUTE FUNCTION catalog_guard_version_part();

INSERT INTO models_catalog_catalogrevision (id, revision) VALUES (1, 1);

CREATE FUNCTION catalog_raise_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE models_catalog_catalogrevision SET revision = revision + 1 WHERE id = 1;
  RETURN NULL;
END $$;
