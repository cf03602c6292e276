-- What was taken back stays taken back, and what a key is never changes.
CREATE FUNCTION tenants_guard_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
    RAISE EXCEPTION 'a revoked key stays revoked' USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.digest, NEW.pepper_number) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.digest, OLD.pepper_number) THEN
    RAISE EXCEPTION 'a key''s secret and organization never change; rotate it' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER tenants_guard_api_key BEFORE UPDATE ON tenants_apikey
  FOR EACH ROW EXECUTE FUNCTION tenants_guard_api_key();
