-- Money that comes in and goes back through Stripe or a bank. Each function is idempotent by id: the same id
-- with the same kind, tenant and amounts answers false, anything else is an error.

-- One more kind of account of the house, also in the currencies that are in use already: collected tax.
CREATE OR REPLACE FUNCTION quotas_open_wallet(p_tenant uuid, p_currency text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO quotas_wallet (tenant_id, currency) VALUES (p_tenant, p_currency);
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(p_tenant, k, p_currency), p_tenant, k, p_currency
  FROM unnest(ARRAY['TOPPED_UP', 'GRANTED', 'RECEIVABLE']) k;
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(NULL, k, p_currency), NULL, k, p_currency
  FROM unnest(ARRAY['REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'GOODWILL', 'CASH_CLEARING', 'STRIPE_CLEARING',
                    'PAYMENT_FEES', 'TAX_PAYABLE', 'OVERRUN_EXPENSE', 'WAIVED_EXPENSE', 'UNBILLED_USAGE']) k
  ON CONFLICT DO NOTHING;
END $$;
INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
SELECT quotas_account_id(NULL, 'TAX_PAYABLE', a.currency), NULL, 'TAX_PAYABLE', a.currency
FROM (SELECT DISTINCT currency FROM quotas_ledgeraccount) a ON CONFLICT DO NOTHING;

-- Whether a payment with this id was posted before; an error when that was about something else. What the
-- tenant's own accounts got of it depends on the moment, so the house's side is what is compared.
CREATE FUNCTION quotas_payment_known(p_id uuid, p_kind text, p_tenant uuid, p_currency text, p_source text,
                                     p_house bigint, p_tax bigint)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
  v_house bigint;
  v_tax bigint;
  v_is_same boolean;
BEGIN
  SELECT t.kind = p_kind AND t.tenant_id IS NOT DISTINCT FROM p_tenant AND t.currency = p_currency,
    coalesce(sum(e.amount_nanos) FILTER (WHERE e.account_id = quotas_account_id(NULL, p_source, p_currency)), 0),
    coalesce(sum(e.amount_nanos) FILTER (WHERE e.account_id = quotas_account_id(NULL, 'TAX_PAYABLE', p_currency)), 0)
  INTO v_is_same, v_house, v_tax
  FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
  WHERE t.id = p_id GROUP BY t.id;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF NOT v_is_same OR v_house <> p_house OR v_tax <> p_tax THEN
    RAISE EXCEPTION 'transfer % exists with another payload', p_id USING ERRCODE = '23505';
  END IF;
  RETURN true;
END $$;

-- Money came in at p_source (STRIPE_CLEARING or CASH_CLEARING): p_amount is credit, p_tax beside it is not the
-- tenant's. What is owed is paid first. Kinds: TOP_UP, REFUND_REVERSED, REINSTATED.
CREATE FUNCTION quotas_pay_in(p_id uuid, p_kind text, p_tenant uuid, p_amount bigint, p_tax bigint, p_source text,
                              p_reason text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  w quotas_wallet;
  v_owed bigint;
BEGIN
  IF p_amount < 0 OR p_tax < 0 OR p_amount + p_tax <= 0 THEN
    RAISE EXCEPTION 'a payment must be positive' USING ERRCODE = '23514';
  END IF;
  SELECT * INTO w FROM quotas_wallet WHERE tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'tenant % has no wallet', p_tenant USING ERRCODE = '23503';
  END IF;
  IF quotas_payment_known(p_id, p_kind, p_tenant, w.currency, p_source, -(p_amount + p_tax), p_tax) THEN
    RETURN false;
  END IF;
  v_owed := least(p_amount, -w.receivable_nanos);
  PERFORM quotas_post(ARRAY(
    SELECT ROW(p_id, p_kind, p_tenant, w.currency, NULL, NULL, p_reason, l.kind,
               CASE WHEN l.is_tenants THEN p_tenant END, l.amount)::quotas_leg
    FROM (VALUES (p_source, false, -(p_amount + p_tax)), ('TAX_PAYABLE', false, p_tax),
                 ('RECEIVABLE', true, v_owed), ('TOPPED_UP', true, p_amount - v_owed)) AS l(kind, is_tenants, amount)
    WHERE l.amount <> 0));
  RETURN true;
END $$;

-- Money goes back out of p_source. Paid credit pays, at most what is neither held nor beyond what is there: the
-- credit line and granted credit are nobody's to pay back with. p_is_forced: the rest is owed to us from then on;
-- otherwise more than that is an error. Kinds: REFUND, CHARGEBACK.
CREATE FUNCTION quotas_pay_back(p_id uuid, p_kind text, p_tenant uuid, p_amount bigint, p_tax bigint, p_source text,
                                p_is_forced boolean, p_reason text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  w quotas_wallet;
  v_paid bigint;
BEGIN
  IF p_amount < 0 OR p_tax < 0 OR p_amount + p_tax <= 0 THEN
    RAISE EXCEPTION 'what is paid back must be positive' USING ERRCODE = '23514';
  END IF;
  SELECT * INTO w FROM quotas_wallet WHERE tenant_id = p_tenant FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'tenant % has no wallet', p_tenant USING ERRCODE = '23503';
  END IF;
  IF quotas_payment_known(p_id, p_kind, p_tenant, w.currency, p_source, p_amount + p_tax, -p_tax) THEN
    RETURN false;
  END IF;
  v_paid := least(p_amount, quotas_free_paid_nanos(w));
  IF v_paid < p_amount AND NOT p_is_forced THEN
    RAISE EXCEPTION 'more than is left of paid credit'
      USING ERRCODE = '23514', CONSTRAINT = 'wallet_pay_back_free';
  END IF;
  PERFORM quotas_post(ARRAY(
    SELECT ROW(p_id, p_kind, p_tenant, w.currency, NULL, NULL, p_reason, l.kind,
               CASE WHEN l.is_tenants THEN p_tenant END, l.amount)::quotas_leg
    FROM (VALUES (p_source, false, p_amount + p_tax), ('TAX_PAYABLE', false, -p_tax),
                 ('TOPPED_UP', true, -v_paid), ('RECEIVABLE', true, v_paid - p_amount)) AS l(kind, is_tenants, amount)
    WHERE l.amount <> 0));
  RETURN true;
END $$;

-- Paid credit that calls under way do not hold; they spend granted credit first.
CREATE FUNCTION quotas_free_paid_nanos(w quotas_wallet) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(0, w.paid_nanos - greatest(0, w.pending_nanos - w.granted_nanos))
$$;

-- Between two of the house's own accounts: a fee, a payout. A negative amount goes the other way.
CREATE FUNCTION quotas_move_house(p_id uuid, p_kind text, p_currency text, p_from text, p_to text, p_amount bigint,
                                  p_reason text)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  RETURN (SELECT posted FROM quotas_post(ARRAY[
    ROW(p_id, p_kind, NULL, p_currency, NULL, NULL, p_reason, p_from, NULL, -p_amount)::quotas_leg,
    ROW(p_id, p_kind, NULL, p_currency, NULL, NULL, p_reason, p_to, NULL, p_amount)::quotas_leg]));
END $$;

-- A Stripe operation ends once and never changes what it asks for. A tenant's role asks for pages to pay on as its
-- own customer, and for the end of its own payments: whatever charges or pays back without the customer, is not its.
CREATE FUNCTION quotas_guard_stripe_operation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF current_user = 'sluice_tenant' AND (NEW.state <> 'PENDING' OR NOT CASE
        WHEN NEW.kind IN ('CHECKOUT', 'SETUP') THEN EXISTS (
          SELECT FROM quotas_stripecustomer c
          WHERE c.tenant_id = NEW.tenant_id AND c.customer_id = NEW.parameters->>'customer')
        WHEN NEW.kind IN ('EXPIRE_CHECKOUT', 'CANCEL_INTENT') THEN EXISTS (
          SELECT FROM quotas_topup t WHERE t.id = NEW.subject_id AND t.tenant_id = NEW.tenant_id AND CASE NEW.kind
            WHEN 'CANCEL_INTENT' THEN t.payment_intent_id = NEW.parameters->>'intent'
            ELSE t.session_id = NEW.parameters->>'session' END)
        ELSE false END) THEN
      RAISE EXCEPTION 'a tenant asks nothing of this kind of Stripe' USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
  END IF;
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'operations at Stripe are not deleted' USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.kind, NEW.subject_id, NEW.parameters, NEW.created_at)
     IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.kind, OLD.subject_id, OLD.parameters, OLD.created_at) THEN
    RAISE EXCEPTION 'what was asked of Stripe never changes' USING ERRCODE = '23001';
  END IF;
  IF OLD.state <> 'PENDING' AND (NEW.state, NEW.object_id) IS DISTINCT FROM (OLD.state, OLD.object_id) THEN
    RAISE EXCEPTION 'operation % has ended', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_stripe_operation BEFORE INSERT OR UPDATE OR DELETE ON quotas_stripeoperation
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_stripe_operation();

-- A top-up that is paid stays paid, and its amounts stay what was credited. Refunds and disputes are rows of their own.
CREATE FUNCTION quotas_guard_top_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'top-ups are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.state <> 'OPEN' THEN
      RAISE EXCEPTION 'a top-up begins with being open' USING ERRCODE = '23514';
    END IF;
    -- What a payment is at Stripe, workers write, who have read it there.
    IF current_user = 'sluice_tenant' AND (NEW.source <> 'CHECKOUT' OR NEW.charge_id <> ''
        OR coalesce(NEW.session_id, NEW.payment_intent_id) IS NOT NULL) THEN
      RAISE EXCEPTION 'a tenant starts top-ups on the page of Stripe only' USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.currency, NEW.source) IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.currency, OLD.source) THEN
    RAISE EXCEPTION 'whose and what a top-up is never changes' USING ERRCODE = '23001';
  END IF;
  IF OLD.state = 'PAID' AND (NEW.state, NEW.amount_nanos, NEW.tax_nanos, NEW.gross_nanos, NEW.transfer_id)
     IS DISTINCT FROM (OLD.state, OLD.amount_nanos, OLD.tax_nanos, OLD.gross_nanos, OLD.transfer_id) THEN
    RAISE EXCEPTION 'top-up % is paid', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_top_up BEFORE INSERT OR UPDATE OR DELETE ON quotas_topup
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_top_up();

-- A refund's money moves once each way, and all refunds of a top-up together are at most what it brought.
CREATE FUNCTION quotas_guard_refund() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_top_up quotas_topup;
  v_refunded bigint;
  v_credit bigint;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'refunds are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF (NEW.id, NEW.tenant_id, NEW.currency, NEW.top_up_id, NEW.amount_nanos, NEW.tax_nanos, NEW.transfer_id)
       IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.currency, OLD.top_up_id, OLD.amount_nanos, OLD.tax_nanos, OLD.transfer_id) THEN
      RAISE EXCEPTION 'what a refund is about never changes' USING ERRCODE = '23001';
    END IF;
    IF OLD.state = 'FAILED' AND NEW.state <> 'FAILED' THEN
      RAISE EXCEPTION 'refund % has failed', OLD.id USING ERRCODE = '23001';
    END IF;
    RETURN NEW;
  END IF;
  SELECT * INTO v_top_up FROM quotas_topup WHERE id = NEW.top_up_id FOR NO KEY UPDATE;
  SELECT coalesce(sum(gross_nanos), 0), coalesce(sum(amount_nanos), 0) INTO v_refunded, v_credit
  FROM quotas_refund WHERE top_up_id = NEW.top_up_id AND state <> 'FAILED';
  IF v_top_up.state <> 'PAID' OR v_refunded + NEW.gross_nanos > v_top_up.gross_nanos
     OR v_credit + NEW.amount_nanos > v_top_up.amount_nanos THEN
    RAISE EXCEPTION 'more than the top-up brought'
      USING ERRCODE = '23514', CONSTRAINT = 'refund_within_top_up';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_refund BEFORE INSERT OR UPDATE OR DELETE ON quotas_refund
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_refund();

-- What carried them out are the transfers that their ids stand for.
ALTER TABLE quotas_topup ADD CONSTRAINT topup_transfer_is_its_own CHECK (
  transfer_id = quotas_transfer_id('TOP_UP', 'topup:' || id));
ALTER TABLE quotas_refund ADD CONSTRAINT refund_transfer_is_its_own CHECK (
  transfer_id = quotas_transfer_id('REFUND', 'refund:' || id)
  AND (reversal_id IS NULL OR reversal_id = quotas_transfer_id('REFUND_REVERSED', 'refund:' || id)));
ALTER TABLE quotas_disputemovement ADD CONSTRAINT disputemovement_transfer_is_its_own CHECK (
  transfer_id = quotas_transfer_id(CASE WHEN taken_nanos > 0 THEN 'CHARGEBACK' ELSE 'REINSTATED' END,
                                   'dispute:' || balance_transaction_id));
ALTER TABLE quotas_balancetransaction ADD CONSTRAINT balancetransaction_transfer_is_its_own CHECK (
  (fee_transfer_id IS NULL OR fee_transfer_id = quotas_transfer_id('PAYMENT_FEE', 'stripe:' || id))
  AND (transfer_id IS NULL OR transfer_id = quotas_transfer_id('PAYOUT', 'stripe:' || id)));
