-- What a key is for and who made it never changes either.
CREATE OR REPLACE FUNCTION tenants_guard_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
    RAISE EXCEPTION 'a revoked key stays revoked' USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.digest, NEW.pepper_number) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.digest, OLD.pepper_number) THEN
    RAISE EXCEPTION 'a key''s secret and organization never change; rotate it' USING ERRCODE = '23001';
  END IF;
  IF (NEW.purpose, NEW.created_by_id) IS DISTINCT FROM (OLD.purpose, OLD.created_by_id) THEN
    RAISE EXCEPTION 'what a key is for and who made it never change' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;

-- An organization keeps an owner. Checked when a transaction ends, so that ownership can change hands in
-- one. The organization's row is locked first: of two owners who leave at once, the second waits here, and
-- its next statement sees that the first is gone.
CREATE FUNCTION tenants_keep_an_owner() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM 1 FROM tenants_tenant WHERE id = OLD.tenant_id FOR NO KEY UPDATE;
  IF NOT EXISTS (SELECT 1 FROM tenants_membership WHERE tenant_id = OLD.tenant_id AND role = 'OWNER') THEN
    RAISE EXCEPTION 'an organization keeps an owner'
      USING ERRCODE = '23514', CONSTRAINT = 'membership_keeps_owner';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER membership_keeps_owner AFTER UPDATE OR DELETE ON tenants_membership
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.role = 'OWNER') EXECUTE FUNCTION tenants_keep_an_owner();

-- An accepted or revoked invitation stays what it is, and nothing changes what an open one offers.
CREATE FUNCTION tenants_guard_invitation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.accepted_at IS NOT NULL THEN
      RAISE EXCEPTION 'an invitation begins open' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
  END IF;
  IF OLD.accepted_at IS NOT NULL OR OLD.revoked_at IS NOT NULL THEN
    RAISE EXCEPTION 'the invitation is closed' USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.email, NEW.role, NEW.invited_by_id, NEW.created_at) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.email, OLD.role, OLD.invited_by_id, OLD.created_at) THEN
    RAISE EXCEPTION 'what an invitation offers never changes; revoke it' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER tenants_guard_invitation BEFORE INSERT OR UPDATE ON tenants_invitation
  FOR EACH ROW EXECUTE FUNCTION tenants_guard_invitation();

CREATE FUNCTION tenants_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = '23001';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON tenants_termsacceptance
  FOR EACH ROW EXECUTE FUNCTION tenants_refuse_change();

-- Mails go to people who did not ask for them, under the name of this installation. However many an
-- organization's pages and programs write, there is a limit to a day. The row lock makes those that come at
-- once count each other. Who writes a mail says when that was, so what waits and what was sent today counts
-- too, however old it is said to be; and nothing is so old that it is deleted before it has counted.
CREATE FUNCTION tenants_cap_mail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM 1 FROM tenants_tenant WHERE id = NEW.tenant_id FOR NO KEY UPDATE;
  IF NEW.created_at < now() - interval '20 days' OR 300 <= (
    SELECT count(*) FROM tenants_outboxmessage
    WHERE tenant_id = NEW.tenant_id AND (created_at > now() - interval '1 day'
      OR sent_at > now() - interval '1 day' OR (sent_at IS NULL AND attempts < 10))) THEN
    RAISE EXCEPTION 'an organization sends at most 300 mails a day'
      USING ERRCODE = '23514', CONSTRAINT = 'outbox_tenant_daily';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER tenants_cap_mail BEFORE INSERT ON tenants_outboxmessage
  FOR EACH ROW WHEN (NEW.tenant_id IS NOT NULL) EXECUTE FUNCTION tenants_cap_mail();

-- A person may own many organizations, of which each sees its own invitations only.
CREATE FUNCTION tenants_cap_invitations() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF 300 <= (SELECT count(*) FROM tenants_invitation
             WHERE invited_by_id = NEW.invited_by_id AND created_at > now() - interval '1 day') THEN
    RAISE EXCEPTION 'a person invites at most 300 times a day'
      USING ERRCODE = '23514', CONSTRAINT = 'invitation_inviter_daily';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER tenants_cap_invitations BEFORE INSERT ON tenants_invitation
  FOR EACH ROW EXECUTE FUNCTION tenants_cap_invitations();
REVOKE ALL ON FUNCTION tenants_cap_mail(), tenants_cap_invitations() FROM PUBLIC;
