-- What is in a bundle was signed: neither the row nor the file behind it changes afterwards. It begins with a wish.
CREATE FUNCTION quotas_guard_bundle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.state <> 'WAITING' THEN
      RAISE EXCEPTION 'a bundle begins as a wish' USING ERRCODE = 'restrict_violation';
    END IF;
  ELSIF OLD.state IN ('READY', 'FAILED') THEN
    RAISE EXCEPTION 'bundle % is finished', OLD.id USING ERRCODE = 'restrict_violation';
  ELSIF (NEW.id, NEW.tenant_id, NEW.currency, NEW.from_at, NEW.to_at)
      IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.currency, OLD.from_at, OLD.to_at) OR NEW.run < OLD.run THEN
    RAISE EXCEPTION 'bundle % was asked for as it is', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON quotas_billbundle
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_bundle();

-- A part is deleted with its bundle, and only then.
ALTER TABLE quotas_billbundlepart ADD CONSTRAINT quotas_billbundlepart_bundle_fk
  FOREIGN KEY (bundle_id, tenant_id) REFERENCES quotas_billbundle (id, tenant_id) ON DELETE CASCADE;
ALTER TABLE quotas_billbundlepart ADD CONSTRAINT bundlepart_size
  CHECK (octet_length(content) BETWEEN 1 AND 1048576);
-- It is compressed already.
ALTER TABLE quotas_billbundlepart ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE FUNCTION quotas_guard_bundle_part() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a part of bundle % never changes', OLD.bundle_id USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE ON quotas_billbundlepart
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_bundle_part();
