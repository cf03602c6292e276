-- Monthly invoices: what they cover, that they add up, and that they never change what they are about.

-- The usage that an invoice covers, by transfer: of calls that were admitted before p_to, as far as it was posted
-- before p_cut, without what the invoice before covers (p_from, p_from_cut), nor what was posted before the agreement
-- began (p_since). paid_nanos: what paid credit and the credit line paid, or is owed.
CREATE FUNCTION quotas_invoice_transfers(p_tenant uuid, p_since timestamptz, p_from timestamptz, p_from_cut timestamptz,
                                         p_to timestamptz, p_cut timestamptz)
RETURNS TABLE (transfer_id uuid, request_id uuid, revision int, paid_nanos bigint) LANGUAGE sql STABLE AS $$
  SELECT t.id, t.request_id, t.revision::int, coalesce((
    SELECT -sum(e.amount_nanos) FROM quotas_ledgerentry e
    WHERE e.transfer_id = t.id AND e.account_id IN (
      quotas_account_id(p_tenant, 'TOPPED_UP', t.currency), quotas_account_id(p_tenant, 'RECEIVABLE', t.currency))), 0)::bigint
  FROM quotas_ledgertransfer t
  JOIN quotas_inferencerequest q ON q.id = t.request_id
  WHERE t.tenant_id = p_tenant AND t.kind = 'USAGE' AND t.posted_at < p_cut
    -- Nothing is posted before its call was admitted.
    AND t.posted_at >= greatest(p_since, least(p_from, p_from_cut))
    AND q.admitted_at < p_to
    AND NOT (q.admitted_at < p_from AND t.posted_at < p_from_cut)
$$;

-- Money of the tenant that came in from p_since until p_to, less what went back, and what credit notes gave back;
-- without what monthly invoices ask for and were paid with, or what a credit note took off one that was not paid yet.
CREATE FUNCTION quotas_postpaid_money(p_tenant uuid, p_since timestamptz, p_to timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(e.amount_nanos), 0)::bigint
  FROM quotas_wallet w
  JOIN quotas_ledgertransfer t ON t.tenant_id = w.tenant_id AND t.kind <> 'USAGE'
    AND t.posted_at >= p_since AND t.posted_at < p_to
  JOIN quotas_ledgerentry e ON e.transfer_id = t.id AND e.account_id IN (
    quotas_account_id(w.tenant_id, 'TOPPED_UP', w.currency), quotas_account_id(w.tenant_id, 'RECEIVABLE', w.currency))
  WHERE w.tenant_id = p_tenant
    AND NOT EXISTS (SELECT 1 FROM quotas_topup u WHERE u.transfer_id = t.id AND u.source = 'INVOICE')
    AND NOT EXISTS (
      SELECT 1 FROM quotas_creditnote n JOIN quotas_monthlyinvoice i ON i.id = n.invoice_id
      WHERE n.transfer_id = t.id AND NOT n.is_after_payment AND i.state <> 'VOID')
$$;

-- What the tenant owed (positive), or had paid in advance (negative), when the agreement began.
CREATE FUNCTION quotas_postpaid_opening(p_tenant uuid, p_since timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(-sum(e.amount_nanos), 0)::bigint
  FROM quotas_wallet w
  JOIN quotas_ledgertransfer t ON t.tenant_id = w.tenant_id AND t.posted_at < p_since
  JOIN quotas_ledgerentry e ON e.transfer_id = t.id AND e.account_id IN (
    quotas_account_id(w.tenant_id, 'TOPPED_UP', w.currency), quotas_account_id(w.tenant_id, 'RECEIVABLE', w.currency))
  WHERE w.tenant_id = p_tenant
$$;

-- An agreement begins once.
CREATE FUNCTION quotas_guard_postpaid_agreement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'agreements are not deleted' USING ERRCODE = '23001';
  END IF;
  IF (NEW.tenant_id, NEW.currency, NEW.since) IS DISTINCT FROM (OLD.tenant_id, OLD.currency, OLD.since) THEN
    RAISE EXCEPTION 'when an agreement began never changes' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_postpaid_agreement BEFORE UPDATE OR DELETE ON quotas_postpaidagreement
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_postpaid_agreement();

-- Each invoice goes on where the one before ended, covers what the ledger says, and never changes what it is about.
CREATE FUNCTION quotas_guard_monthly_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_since timestamptz;
  v_to timestamptz;
  v_cut timestamptz;
  v_usage bigint;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'invoices are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.state NOT IN ('DRAFT', 'COVERED') THEN
      RAISE EXCEPTION 'an invoice begins as a draft' USING ERRCODE = '23514';
    END IF;
    SELECT since INTO v_since FROM quotas_postpaidagreement WHERE tenant_id = NEW.tenant_id FOR NO KEY UPDATE;
    SELECT to_at, cut_at INTO v_to, v_cut FROM quotas_monthlyinvoice WHERE tenant_id = NEW.tenant_id
    ORDER BY to_at DESC LIMIT 1;
    IF v_since IS NULL OR (NEW.from_at, NEW.from_cut_at) IS DISTINCT FROM (coalesce(v_to, v_since), coalesce(v_cut, v_since))
       OR NEW.cut_at > now() THEN
      RAISE EXCEPTION 'an invoice goes on where the one before ended'
        USING ERRCODE = '23514', CONSTRAINT = 'monthlyinvoice_goes_on';
    END IF;
    SELECT coalesce(sum(t.paid_nanos), 0) INTO v_usage FROM quotas_invoice_transfers(
      NEW.tenant_id, v_since, NEW.from_at, NEW.from_cut_at, NEW.to_at, NEW.cut_at) t;
    IF v_usage <> NEW.usage_nanos THEN
      RAISE EXCEPTION 'the usage of an invoice is not what the ledger says'
        USING ERRCODE = '23514', CONSTRAINT = 'monthlyinvoice_usage_is_the_ledgers';
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.state <> OLD.state AND NOT (
       (OLD.state = 'DRAFT' AND NEW.state IN ('OPEN', 'VOID'))
       OR (OLD.state = 'OPEN' AND NEW.state IN ('PAID', 'VOID', 'UNCOLLECTIBLE'))
       OR (OLD.state = 'UNCOLLECTIBLE' AND NEW.state IN ('PAID', 'VOID'))) THEN
    RAISE EXCEPTION 'invoice % is % and cannot become %', OLD.id, OLD.state, NEW.state USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.currency, NEW.month, NEW.from_at, NEW.from_cut_at, NEW.to_at, NEW.cut_at,
      NEW.usage_nanos, NEW.brought_nanos, NEW.payments_nanos, NEW.amount_nanos) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.currency, OLD.month, OLD.from_at, OLD.from_cut_at, OLD.to_at, OLD.cut_at,
      OLD.usage_nanos, OLD.brought_nanos, OLD.payments_nanos, OLD.amount_nanos)
     OR (OLD.stripe_invoice_id IS NOT NULL AND NEW.stripe_invoice_id IS DISTINCT FROM OLD.stripe_invoice_id)
     OR NEW.credited_nanos < OLD.credited_nanos
     -- What was void or paid is so for good, also what was taken back of it before.
     OR (OLD.state IN ('PAID', 'VOID') AND NEW.credited_nanos <> OLD.credited_nanos) THEN
    RAISE EXCEPTION 'what an invoice is about never changes' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_monthly_invoice BEFORE INSERT OR UPDATE OR DELETE ON quotas_monthlyinvoice
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_monthly_invoice();

-- Its lines add up: those of usage to its usage, all of them to what is asked for, also rounded.
CREATE FUNCTION quotas_check_monthly_lines() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_invoice uuid;
BEGIN
  IF TG_TABLE_NAME = 'quotas_monthlyinvoiceline' THEN
    v_invoice := NEW.invoice_id;
  ELSE
    v_invoice := NEW.id;
  END IF;
  PERFORM 1 FROM quotas_monthlyinvoice i
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(l.amount_nanos), 0) AS amount, coalesce(sum(l.asked_nanos), 0) AS asked,
      coalesce(sum(l.amount_nanos) FILTER (WHERE l.kind = 'USAGE'), 0) AS usage,
      coalesce(sum(l.amount_nanos) FILTER (WHERE l.kind = 'BROUGHT'), 0) AS brought,
      coalesce(-sum(l.amount_nanos) FILTER (WHERE l.kind = 'PAYMENTS'), 0) AS payments
    FROM quotas_monthlyinvoiceline l WHERE l.invoice_id = i.id) s
  WHERE i.id = v_invoice AND (s.amount, s.asked, s.usage, s.brought, s.payments)
    IS DISTINCT FROM (i.amount_nanos, i.amount_nanos, i.usage_nanos, i.brought_nanos, i.payments_nanos);
  IF FOUND THEN
    RAISE EXCEPTION 'the lines of invoice % do not add up', v_invoice
      USING ERRCODE = '23514', CONSTRAINT = 'monthlyinvoice_is_its_lines';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER quotas_check_monthly_lines AFTER INSERT ON quotas_monthlyinvoice
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_monthly_lines();
CREATE CONSTRAINT TRIGGER quotas_check_monthly_lines AFTER INSERT ON quotas_monthlyinvoiceline
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_monthly_lines();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quotas_monthlyinvoiceline
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();

-- No top-up is paid by an invoice but by the one whose id it has, and with what that one asked for.
CREATE FUNCTION quotas_check_invoice_top_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM quotas_monthlyinvoice WHERE id = NEW.id AND top_up_id = NEW.id
                 AND amount_nanos - credited_nanos = NEW.amount_nanos) THEN
    RAISE EXCEPTION 'top-up % is of no paid invoice', NEW.id
      USING ERRCODE = '23514', CONSTRAINT = 'topup_by_invoice_paid';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER quotas_check_invoice_top_up AFTER INSERT OR UPDATE ON quotas_topup
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.source = 'INVOICE')
  EXECUTE FUNCTION quotas_check_invoice_top_up();

-- Credit notes of an invoice are together at most what it asked for. They end once.
CREATE FUNCTION quotas_guard_credit_note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_invoice quotas_monthlyinvoice;
  v_credited bigint;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'credit notes are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF OLD.state <> 'PENDING' OR (NEW.id, NEW.tenant_id, NEW.currency, NEW.invoice_id, NEW.amount_nanos,
        NEW.is_after_payment, NEW.reason, NEW.ordered_by_id, NEW.ordered_at) IS DISTINCT FROM
       (OLD.id, OLD.tenant_id, OLD.currency, OLD.invoice_id, OLD.amount_nanos, OLD.is_after_payment, OLD.reason,
        OLD.ordered_by_id, OLD.ordered_at) THEN
      RAISE EXCEPTION 'what a credit note is about never changes' USING ERRCODE = '23001';
    END IF;
    RETURN NEW;
  END IF;
  SELECT * INTO v_invoice FROM quotas_monthlyinvoice WHERE id = NEW.invoice_id FOR NO KEY UPDATE;
  SELECT coalesce(sum(amount_nanos), 0) INTO v_credited FROM quotas_creditnote
  WHERE invoice_id = NEW.invoice_id AND state <> 'FAILED';
  IF v_invoice.state NOT IN ('OPEN', 'PAID', 'UNCOLLECTIBLE') OR v_credited + NEW.amount_nanos > v_invoice.amount_nanos THEN
    RAISE EXCEPTION 'more than the invoice asked for'
      USING ERRCODE = '23514', CONSTRAINT = 'creditnote_within_invoice';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_credit_note BEFORE INSERT OR UPDATE OR DELETE ON quotas_creditnote
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_credit_note();
ALTER TABLE quotas_creditnote ADD CONSTRAINT creditnote_transfer_is_its_own CHECK (
  transfer_id = quotas_transfer_id('ADJUSTMENT', 'credit_note:' || id));
ALTER TABLE quotas_creditnote ADD CONSTRAINT creditnote_minor_units CHECK (amount_nanos % 10000000 = 0);
ALTER TABLE quotas_monthlyinvoice ADD CONSTRAINT monthlyinvoice_minor_units CHECK (
  amount_nanos % 10000000 = 0 AND credited_nanos % 10000000 = 0);

-- What Stripe has invoiced, with monthly invoices: those that were paid by their payment, those that are to be paid by
-- what they ask for, so that whoever pays the balance in another way gets no second invoice over it. What a credit note
-- gave back was never money.
CREATE OR REPLACE FUNCTION quotas_invoiced_by_stripe(p_tenant uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(t.amount_nanos - (
    SELECT coalesce(sum(r.amount_nanos), 0) FROM quotas_refund r WHERE r.top_up_id = t.id AND r.state = 'SUCCEEDED')), 0)::bigint
    + (SELECT coalesce(sum(n.amount_nanos), 0) FROM quotas_creditnote n
       WHERE n.tenant_id = p_tenant AND n.state = 'ISSUED')::bigint
    + (SELECT coalesce(sum(i.amount_nanos - i.credited_nanos), 0) FROM quotas_monthlyinvoice i
       WHERE i.tenant_id = p_tenant AND i.state IN ('DRAFT', 'OPEN', 'UNCOLLECTIBLE'))::bigint
  FROM quotas_topup t
  WHERE t.tenant_id = p_tenant AND t.state = 'PAID' AND t.source <> 'BANK' AND (
    t.source = 'INVOICE' OR t.invoice_url <> '' OR EXISTS (
      SELECT 1 FROM quotas_stripeoperation o WHERE o.tenant_id = t.tenant_id AND o.subject_id = t.id
        AND o.parameters #>> '{invoice_creation,enabled}' = 'true'))
$$;
