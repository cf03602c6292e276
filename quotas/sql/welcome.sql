-- A welcome credit begins as a promise, moves WAITING -> HELD -> GIVEN or REFUSED, never back, and never
-- changes its amount or whom it is for.
CREATE FUNCTION quotas_guard_welcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.state <> 'WAITING' THEN
      RAISE EXCEPTION 'a welcome credit begins with waiting' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
  END IF;
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'welcome credits are not deleted' USING ERRCODE = '23001';
  END IF;
  IF OLD.state IN ('GIVEN', 'REFUSED') OR NEW.state = 'WAITING' OR (OLD.state = 'HELD' AND NEW.state = 'HELD') THEN
    RAISE EXCEPTION 'the welcome credit of % is decided', OLD.tenant_id USING ERRCODE = '23001';
  END IF;
  IF (NEW.tenant_id, NEW.user_id, NEW.currency, NEW.amount_nanos, NEW.created_at) IS DISTINCT FROM
     (OLD.tenant_id, OLD.user_id, OLD.currency, OLD.amount_nanos, OLD.created_at)
     OR (OLD.person_key IS NOT NULL AND NEW.person_key IS DISTINCT FROM OLD.person_key) THEN
    RAISE EXCEPTION 'what a welcome credit is never changes' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_welcome BEFORE INSERT OR UPDATE OR DELETE ON quotas_welcomegrant
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_welcome();
