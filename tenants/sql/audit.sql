-- The audit log and operators' notes only grow.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON tenants_auditevent
  FOR EACH ROW EXECUTE FUNCTION tenants_refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON tenants_auditevent
  FOR EACH STATEMENT EXECUTE FUNCTION tenants_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON tenants_tenantnote
  FOR EACH ROW EXECUTE FUNCTION tenants_refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON tenants_tenantnote
  FOR EACH STATEMENT EXECUTE FUNCTION tenants_refuse_change();
