-- A name leads to one model: no alias is also a slug.
--
-- No unique index spans two tables. But whoever writes to one of them has locked the revision by the time that
-- this trigger fires, since triggers fire in the order of their names; so what others have added is committed,
-- and a statement begun here sees it.
CREATE FUNCTION catalog_unique_address() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_name text;
BEGIN
  SELECT a.name INTO v_name
  FROM models_catalog_modelalias a JOIN models_catalog_catalogmodel m ON m.slug = a.name LIMIT 1;
  IF v_name IS NOT NULL THEN
    RAISE EXCEPTION 'the name % is both a model''s and an alias', v_name USING ERRCODE = '23505';
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER catalog_raise_revision AFTER INSERT OR UPDATE OR DELETE ON models_catalog_modelalias
  FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_revision();
CREATE TRIGGER catalog_unique_address AFTER INSERT OR UPDATE ON models_catalog_modelalias
  FOR EACH STATEMENT EXECUTE FUNCTION catalog_unique_address();
CREATE TRIGGER catalog_unique_address AFTER INSERT OR UPDATE OF slug ON models_catalog_catalogmodel
  FOR EACH STATEMENT EXECUTE FUNCTION catalog_unique_address();
