-- Free credit that expires. What expires first is spent first; what never does, last.

-- Brings the lots of an organization, whose wallet is locked, up to what is granted now. What came back of calls
-- that had been spent counts as credit without an end.
CREATE FUNCTION quotas_settle_lots(p_tenant uuid, p_granted bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_spent bigint;
BEGIN
  SELECT sum(left_nanos) - p_granted INTO v_spent FROM quotas_creditlot WHERE tenant_id = p_tenant;
  IF v_spent > 0 THEN
    UPDATE quotas_creditlot l SET left_nanos = l.left_nanos - least(l.left_nanos, v_spent - o.before)
    FROM (SELECT id, sum(left_nanos) OVER (ORDER BY expires_at NULLS LAST, id) - left_nanos AS before
          FROM quotas_creditlot WHERE tenant_id = p_tenant AND left_nanos > 0) o
    WHERE l.id = o.id AND o.before < v_spent;
  ELSIF v_spent < 0 THEN
    UPDATE quotas_creditlot SET left_nanos = left_nanos - v_spent, amount_nanos = amount_nanos - v_spent
    WHERE tenant_id = p_tenant AND expires_at IS NULL;
  END IF;
END $$;

-- Free credit that comes in, as quotas_credit, with the moment at which what is left of it goes again, or none.
-- The same id with another end is an error.
CREATE FUNCTION quotas_grant(p_id uuid, p_kind text, p_tenant uuid, p_amount bigint, p_source text, p_reason text,
  p_expires_at timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  w quotas_wallet;
  v_has_lots boolean;
BEGIN
  SELECT * INTO w FROM quotas_wallet WHERE tenant_id = p_tenant FOR NO KEY UPDATE;
  v_has_lots := EXISTS (SELECT 1 FROM quotas_creditlot WHERE tenant_id = p_tenant);
  IF NOT quotas_credit(p_id, p_kind, p_tenant, p_amount, p_source, p_reason) THEN
    IF p_expires_at IS DISTINCT FROM (SELECT expires_at FROM quotas_creditlot WHERE id = p_id) THEN
      RAISE EXCEPTION 'transfer % exists with another end', p_id USING ERRCODE = '23505';
    END IF;
    RETURN false;
  END IF;
  IF v_has_lots THEN
    PERFORM quotas_settle_lots(p_tenant, w.granted_nanos);
  ELSIF p_expires_at IS NOT NULL THEN
    INSERT INTO quotas_creditlot (id, tenant_id, currency, source, amount_nanos, left_nanos, expired_nanos)
    VALUES (quotas_transfer_id('LOT', p_tenant::text), p_tenant, w.currency, 'PROMOTION', w.granted_nanos,
      w.granted_nanos, 0);
  END IF;
  IF p_expires_at IS NOT NULL THEN
    INSERT INTO quotas_creditlot (id, tenant_id, currency, source, amount_nanos, left_nanos, expired_nanos, expires_at)
    VALUES (p_id, p_tenant, w.currency, p_source, p_amount, p_amount, 0, p_expires_at);
  ELSE
    UPDATE quotas_creditlot SET left_nanos = left_nanos + p_amount, amount_nanos = amount_nanos + p_amount
    WHERE tenant_id = p_tenant AND expires_at IS NULL;
  END IF;
  RETURN true;
END $$;

-- Takes back what has expired of an organization's free credit, by the database's clock: at most what calls under
-- way do not hold and what does not keep a debt within the credit line; the rest goes when it is free. Answers
-- how much went.
CREATE FUNCTION quotas_expire_lots(p_tenant uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  w quotas_wallet;
  l quotas_creditlot;
  v_now timestamptz := clock_timestamp();
  v_free bigint;
  v_takes bigint;
  v_gone bigint := 0;
  v_id uuid;
BEGIN
  SELECT * INTO w FROM quotas_wallet WHERE tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  PERFORM quotas_settle_lots(p_tenant, w.granted_nanos);
  v_free := greatest(0, w.granted_nanos - w.pending_nanos + least(0, w.paid_nanos + w.overdraft_nanos));
  FOR l IN SELECT * FROM quotas_creditlot
           WHERE tenant_id = p_tenant AND left_nanos > 0 AND expires_at <= v_now ORDER BY expires_at, id LOOP
    v_takes := least(l.left_nanos, v_free - v_gone);
    EXIT WHEN v_takes <= 0;
    -- A lot can go in several pieces, so the id says where this one begins.
    v_id := quotas_transfer_id('EXPIRY', l.id || ':' || l.expired_nanos);
    PERFORM quotas_post(ARRAY[
      ROW(v_id, 'EXPIRY', p_tenant, w.currency, NULL, NULL, '', 'GRANTED', p_tenant, -v_takes)::quotas_leg,
      ROW(v_id, 'EXPIRY', p_tenant, w.currency, NULL, NULL, '', l.source, NULL, v_takes)::quotas_leg]);
    UPDATE quotas_creditlot SET left_nanos = left_nanos - v_takes, expired_nanos = expired_nanos + v_takes
    WHERE id = l.id;
    v_gone := v_gone + v_takes;
  END LOOP;
  RETURN v_gone;
END $$;

-- As before, with the end of what is granted, which never changes either.
CREATE OR REPLACE FUNCTION quotas_guard_credit_order() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_moved bigint;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'credit orders are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.state <> 'WAITING' THEN
      RAISE EXCEPTION 'a credit order begins with waiting' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
  END IF;
  IF OLD.state <> 'WAITING' OR NEW.state = 'WAITING' THEN
    RAISE EXCEPTION 'credit order % is decided', OLD.id USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.currency, NEW.kind, NEW.amount_nanos, NEW.limit_nanos, NEW.reason,
      NEW.ordered_by_id, NEW.ordered_at, NEW.expires_at) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.currency, OLD.kind, OLD.amount_nanos, OLD.limit_nanos, OLD.reason,
      OLD.ordered_by_id, OLD.ordered_at, OLD.expires_at) THEN
    RAISE EXCEPTION 'what was ordered never changes' USING ERRCODE = '23001';
  END IF;
  IF NEW.transfer_id IS NOT NULL THEN
    SELECT e.amount_nanos INTO v_moved FROM quotas_ledgerentry e
    WHERE e.transfer_id = NEW.transfer_id
      AND e.account_id = quotas_account_id(NEW.tenant_id, 'GRANTED', NEW.currency);
    IF v_moved IS DISTINCT FROM
       (CASE NEW.kind WHEN 'TAKE_BACK' THEN -NEW.amount_nanos ELSE NEW.amount_nanos END) THEN
      RAISE EXCEPTION 'transfer % is not what was ordered', NEW.transfer_id USING ERRCODE = '23514';
    END IF;
    IF NEW.expires_at IS DISTINCT FROM (SELECT l.expires_at FROM quotas_creditlot l WHERE l.id = NEW.transfer_id) THEN
      RAISE EXCEPTION 'transfer % has another end than what was ordered', NEW.transfer_id USING ERRCODE = '23514';
    END IF;
  END IF;
  RETURN NEW;
END $$;
