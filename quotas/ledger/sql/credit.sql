-- Money or free credit that comes in. Idempotent by id: the same id with the same kind, tenant, source and
-- amount answers false, anything else is an error. Paid credit pays what is owed first.
CREATE FUNCTION quotas_credit(p_id uuid, p_kind text, p_tenant uuid, p_amount bigint, p_source text, p_reason text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  w quotas_wallet;
  v_known bigint;
  v_owed bigint := 0;
BEGIN
  IF p_amount <= 0 THEN
    RAISE EXCEPTION 'a credit must be positive' USING ERRCODE = '23514';
  END IF;
  SELECT * INTO w FROM quotas_wallet WHERE tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'tenant % has no wallet', p_tenant USING ERRCODE = '23503';
  END IF;
  IF EXISTS (SELECT 1 FROM quotas_ledgertransfer WHERE id = p_id) THEN
    SELECT -e.amount_nanos INTO v_known
    FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
    WHERE t.id = p_id AND t.kind = p_kind AND t.tenant_id = p_tenant
      AND e.account_id = quotas_account_id(NULL, p_source, w.currency);
    IF v_known IS DISTINCT FROM p_amount THEN
      RAISE EXCEPTION 'transfer % exists with another payload', p_id USING ERRCODE = '23505';
    END IF;
    RETURN false;
  END IF;
  IF p_kind = 'TOP_UP' THEN
    v_owed := least(p_amount, -w.receivable_nanos);
  END IF;
  PERFORM quotas_post(ARRAY(
    SELECT ROW(p_id, p_kind, p_tenant, w.currency, NULL, NULL, p_reason, l.kind,
               CASE WHEN l.is_tenants THEN p_tenant END, l.amount)::quotas_leg
    FROM (VALUES (p_source, false, -p_amount),
                 ('RECEIVABLE', true, v_owed),
                 (CASE WHEN p_kind = 'TOP_UP' THEN 'TOPPED_UP' ELSE 'GRANTED' END, true, p_amount - v_owed)
         ) AS l(kind, is_tenants, amount)
    WHERE l.amount <> 0));
  RETURN true;
END $$;
