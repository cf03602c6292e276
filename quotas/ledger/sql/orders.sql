-- What operators order about an organization's credit.

-- Free credit goes back to where it was handed out from: at most what is granted and not held, because what
-- calls under way hold is spent from granted credit first. Idempotent by id as quotas_credit is.
CREATE FUNCTION quotas_take_back(p_id uuid, p_tenant uuid, p_amount bigint, p_reason text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  w quotas_wallet;
  v_known bigint;
BEGIN
  IF p_amount <= 0 THEN
    RAISE EXCEPTION 'what is taken back must be positive' USING ERRCODE = '23514';
  END IF;
  SELECT * INTO w FROM quotas_wallet WHERE tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'tenant % has no wallet', p_tenant USING ERRCODE = '23503';
  END IF;
  IF EXISTS (SELECT 1 FROM quotas_ledgertransfer WHERE id = p_id) THEN
    SELECT e.amount_nanos INTO v_known
    FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
    WHERE t.id = p_id AND t.kind = 'ADJUSTMENT' AND t.tenant_id = p_tenant
      AND e.account_id = quotas_account_id(NULL, 'PROMOTION', w.currency);
    IF v_known IS DISTINCT FROM p_amount THEN
      RAISE EXCEPTION 'transfer % exists with another payload', p_id USING ERRCODE = '23505';
    END IF;
    RETURN false;
  END IF;
  IF p_amount > w.granted_nanos - w.pending_nanos THEN
    RAISE EXCEPTION 'more than is granted and not held'
      USING ERRCODE = '23514', CONSTRAINT = 'wallet_take_back_free';
  END IF;
  PERFORM quotas_post(ARRAY[
    ROW(p_id, 'ADJUSTMENT', p_tenant, w.currency, NULL, NULL, p_reason, 'GRANTED', p_tenant, -p_amount)::quotas_leg,
    ROW(p_id, 'ADJUSTMENT', p_tenant, w.currency, NULL, NULL, p_reason, 'PROMOTION', NULL, p_amount)::quotas_leg]);
  RETURN true;
END $$;

-- An order waits, is decided once, and never changes what it is about. What carried it out is the transfer
-- that its id stands for, and that moved exactly what was ordered.
CREATE FUNCTION quotas_guard_credit_order() RETURNS trigger LANGUAGE plpgsql AS $$
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
      NEW.ordered_by_id, NEW.ordered_at) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.currency, OLD.kind, OLD.amount_nanos, OLD.limit_nanos, OLD.reason,
      OLD.ordered_by_id, OLD.ordered_at) THEN
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
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_credit_order BEFORE INSERT OR UPDATE OR DELETE ON quotas_creditorder
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_credit_order();
ALTER TABLE quotas_creditorder ADD CONSTRAINT creditorder_transfer_is_its_own CHECK (
  transfer_id = quotas_transfer_id(CASE kind WHEN 'GRANT' THEN 'GRANT' ELSE 'ADJUSTMENT' END, 'order:' || id));

-- Two more kinds of accounts of the house, also in the currencies that are in use already.
CREATE OR REPLACE FUNCTION quotas_open_wallet(p_tenant uuid, p_currency text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO quotas_wallet (tenant_id, currency) VALUES (p_tenant, p_currency);
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(p_tenant, k, p_currency), p_tenant, k, p_currency
  FROM unnest(ARRAY['TOPPED_UP', 'GRANTED', 'RECEIVABLE']) k;
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(NULL, k, p_currency), NULL, k, p_currency
  FROM unnest(ARRAY['REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'GOODWILL', 'CASH_CLEARING', 'STRIPE_CLEARING',
                    'PAYMENT_FEES', 'OVERRUN_EXPENSE', 'UNBILLED_USAGE']) k
  ON CONFLICT DO NOTHING;
END $$;
INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
SELECT quotas_account_id(NULL, k, a.currency), NULL, k, a.currency
FROM (SELECT DISTINCT currency FROM quotas_ledgeraccount) a CROSS JOIN unnest(ARRAY['GOODWILL', 'PAYMENT_FEES']) k
ON CONFLICT DO NOTHING;
