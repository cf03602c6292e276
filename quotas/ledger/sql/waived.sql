-- One more kind of account of the house, also in the currencies that are in use already: what was delivered of calls
-- that broke off and is not billed.

-- Opens the wallet and the accounts of a tenant, and the house's own accounts of its currency.
CREATE OR REPLACE FUNCTION quotas_open_wallet(p_tenant uuid, p_currency text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO quotas_wallet (tenant_id, currency) VALUES (p_tenant, p_currency);
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(p_tenant, k, p_currency), p_tenant, k, p_currency
  FROM unnest(ARRAY['TOPPED_UP', 'GRANTED', 'RECEIVABLE']) k;
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(NULL, k, p_currency), NULL, k, p_currency
  FROM unnest(ARRAY['REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'GOODWILL', 'CASH_CLEARING', 'STRIPE_CLEARING',
                    'PAYMENT_FEES', 'OVERRUN_EXPENSE', 'WAIVED_EXPENSE', 'UNBILLED_USAGE']) k
  ON CONFLICT DO NOTHING;
END $$;
INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
SELECT quotas_account_id(NULL, 'WAIVED_EXPENSE', a.currency), NULL, 'WAIVED_EXPENSE', a.currency
FROM (SELECT DISTINCT currency FROM quotas_ledgeraccount) a ON CONFLICT DO NOTHING;
