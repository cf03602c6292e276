-- Bank transfers: references that find an organization, and receipts that two operators turn into credit.

-- Whether the last two digits check the rest, modulo 97, as quotas/payments/bank_references.py spells them.
CREATE FUNCTION quotas_reference_checks(p_reference text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce((
      sum((strpos('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', c.sign) - 1) * 36::numeric ^ (8 - c.place)) * 100
      + substring(p_reference FROM '[0-9]{2}$')::int) % 97 = 1, false)
  FROM regexp_split_to_table(left(replace(p_reference, '-', ''), 8), '') WITH ORDINALITY AS c(sign, place)
$$;
ALTER TABLE quotas_bankreference ADD CONSTRAINT bankreference_checks CHECK (quotas_reference_checks(reference));
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quotas_bankreference
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();

-- A receipt waits, is decided once, and never changes what it is about. What it credits is the top-up of its
-- own id, and exactly what came in.
CREATE FUNCTION quotas_guard_bank_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_top_up quotas_topup;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'bank receipts are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.state <> 'WAITING' THEN
      RAISE EXCEPTION 'a bank receipt begins with waiting' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
  END IF;
  IF OLD.state <> 'WAITING' OR NEW.state = 'WAITING' THEN
    RAISE EXCEPTION 'bank receipt % is decided', OLD.id USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.currency, NEW.reference_id, NEW.amount_nanos, NEW.tax_nanos, NEW.value_date,
      NEW.bank_transaction_id, NEW.payer_name, NEW.reason, NEW.recorded_by_id, NEW.recorded_at) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.currency, OLD.reference_id, OLD.amount_nanos, OLD.tax_nanos, OLD.value_date,
      OLD.bank_transaction_id, OLD.payer_name, OLD.reason, OLD.recorded_by_id, OLD.recorded_at) THEN
    RAISE EXCEPTION 'what came in never changes' USING ERRCODE = '23001';
  END IF;
  IF NEW.state = 'APPROVED' THEN
    SELECT * INTO v_top_up FROM quotas_topup WHERE id = NEW.top_up_id;
    IF (v_top_up.source, v_top_up.state, v_top_up.gross_nanos, v_top_up.tax_nanos) IS DISTINCT FROM
       ('BANK', 'PAID', NEW.amount_nanos, NEW.tax_nanos) THEN
      RAISE EXCEPTION 'top-up % is not what came in', NEW.top_up_id USING ERRCODE = '23514';
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_bank_receipt BEFORE INSERT OR UPDATE OR DELETE ON quotas_bankreceipt
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_bank_receipt();

-- No top-up by bank transfer is paid but by a receipt that a second operator approved.
CREATE FUNCTION quotas_check_bank_top_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM quotas_bankreceipt WHERE id = NEW.id AND top_up_id = NEW.id) THEN
    RAISE EXCEPTION 'top-up % has no approved receipt', NEW.id
      USING ERRCODE = '23514', CONSTRAINT = 'topup_by_bank_received';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER quotas_check_bank_top_up AFTER INSERT OR UPDATE ON quotas_topup
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.source = 'BANK' AND NEW.state = 'PAID')
  EXECUTE FUNCTION quotas_check_bank_top_up();
