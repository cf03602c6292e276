-- What a management key is never changes, and what was taken back stays taken back.
CREATE FUNCTION tenants_guard_management_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
    RAISE EXCEPTION 'a revoked key stays revoked' USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.role, NEW.scopes, NEW.digest, NEW.pepper_number, NEW.created_by_id,
      NEW.created_at, NEW.expires_at) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.role, OLD.scopes, OLD.digest, OLD.pepper_number, OLD.created_by_id,
      OLD.created_at, OLD.expires_at) THEN
    RAISE EXCEPTION 'what a management key is never changes; make another one' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER tenants_guard_management_key BEFORE UPDATE ON tenants_managementkey
  FOR EACH ROW EXECUTE FUNCTION tenants_guard_management_key();

-- What was answered stays answered; old answers are deleted.
CREATE TRIGGER never_changed BEFORE UPDATE ON tenants_idempotentwrite
  FOR EACH ROW EXECUTE FUNCTION tenants_refuse_change();
