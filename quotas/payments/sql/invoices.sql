-- Invoices on request: whom they are made out to, what they may cover, and that nothing is covered twice.

-- Nobody verifies a name that is changed afterwards: whoever changes it, the verification is gone.
CREATE FUNCTION quotas_guard_billing_profile() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'billing profiles are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.state <> 'UNVERIFIED' THEN
      RAISE EXCEPTION 'a billing profile begins unverified' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.tenant_id <> OLD.tenant_id THEN
    RAISE EXCEPTION 'whose a billing profile is never changes' USING ERRCODE = '23001';
  END IF;
  -- What was refused and is sent again waits again, whatever of it was changed.
  IF (NEW.legal_name, NEW.tax_id) IS DISTINCT FROM (OLD.legal_name, OLD.tax_id)
     OR (OLD.state = 'REFUSED' AND NEW.changed_at <> OLD.changed_at) THEN
    NEW.state := 'UNVERIFIED'; NEW.decided_by_id := NULL; NEW.decided_at := NULL; NEW.decision_reason := '';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_billing_profile BEFORE INSERT OR UPDATE OR DELETE ON quotas_billingprofile
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_billing_profile();

-- What usage took from paid credit, or left owed, from a moment on.
CREATE FUNCTION quotas_paid_usage(p_tenant uuid, p_from timestamptz, p_to timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT coalesce(-sum(e.amount_nanos), 0)::bigint
  FROM quotas_wallet w
  JOIN quotas_ledgertransfer t ON t.tenant_id = w.tenant_id AND t.kind = 'USAGE'
    AND t.posted_at >= p_from AND (p_to IS NULL OR t.posted_at < p_to)
  JOIN quotas_ledgerentry e ON e.transfer_id = t.id AND e.account_id IN (
    quotas_account_id(w.tenant_id, 'TOPPED_UP', w.currency), quotas_account_id(w.tenant_id, 'RECEIVABLE', w.currency))
  WHERE w.tenant_id = p_tenant
$$;

-- Paid credit that was consumed: the money that came in and was not paid back, less what is left of it. What
-- is owed, or spent from a credit line, is no money yet. Before a moment: at most what usage took until then.
-- All that is not usage is little (transfer_tenant_otherwise), so that without a moment no usage is read.
CREATE FUNCTION quotas_paid_consumption(p_tenant uuid, p_to timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT least(m.money - greatest(0, w.paid_nanos),
    CASE WHEN p_to IS NOT NULL
         THEN m.money - w.paid_nanos - w.receivable_nanos - quotas_paid_usage(p_tenant, p_to, NULL) END)
  FROM quotas_wallet w CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.amount_nanos), 0)::bigint AS money
    FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id AND e.account_id IN (
      quotas_account_id(w.tenant_id, 'TOPPED_UP', w.currency), quotas_account_id(w.tenant_id, 'RECEIVABLE', w.currency))
    WHERE t.tenant_id = w.tenant_id AND t.kind <> 'USAGE') m
  WHERE w.tenant_id = p_tenant
$$;

-- What Stripe has invoiced, or was asked to with the payment: the credit of those top-ups, less what of it was
-- refunded. Whoever makes invoices at Stripe in another way replaces this function.
CREATE FUNCTION quotas_invoiced_by_stripe(p_tenant uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(t.amount_nanos - (
    SELECT coalesce(sum(r.amount_nanos), 0) FROM quotas_refund r WHERE r.top_up_id = t.id AND r.state = 'SUCCEEDED')), 0)::bigint
  FROM quotas_topup t
  WHERE t.tenant_id = p_tenant AND t.state = 'PAID' AND t.source <> 'BANK' AND (t.invoice_url <> '' OR EXISTS (
    SELECT 1 FROM quotas_stripeoperation o WHERE o.tenant_id = t.tenant_id AND o.subject_id = t.id
      AND o.parameters #>> '{invoice_creation,enabled}' = 'true'))
$$;

CREATE FUNCTION quotas_invoiced_on_request(p_tenant uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(amount_nanos), 0)::bigint FROM quotas_invoicerequest
  WHERE tenant_id = p_tenant AND state IN ('REQUESTED', 'ISSUED')
$$;

-- An invoice covers what nothing else covers, ends once, and never changes what it is about.
CREATE FUNCTION quotas_guard_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_room bigint;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'invoices are not deleted' USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.state <> 'REQUESTED' THEN
      RAISE EXCEPTION 'an invoice begins with being requested' USING ERRCODE = '23514';
    END IF;
    -- Whoever requests invoices of an organization does so one by one; the wallet stays free for its calls.
    PERFORM 1 FROM quotas_billingprofile
    WHERE tenant_id = NEW.tenant_id AND state = 'VERIFIED' AND legal_name = NEW.legal_name AND tax_id = NEW.tax_id
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'the billing profile is not verified'
        USING ERRCODE = '23514', CONSTRAINT = 'invoicerequest_profile_verified';
    END IF;
    v_room := quotas_paid_consumption(NEW.tenant_id, NULL) - quotas_invoiced_by_stripe(NEW.tenant_id)
      - quotas_invoiced_on_request(NEW.tenant_id);
    IF NEW.amount_nanos > v_room THEN
      RAISE EXCEPTION 'more than was consumed and is not invoiced'
        USING ERRCODE = '23514', CONSTRAINT = 'invoicerequest_within_consumption';
    END IF;
    RETURN NEW;
  END IF;
  IF NOT ((OLD.state = 'REQUESTED' AND NEW.state IN ('ISSUED', 'REFUSED', 'CANCELLED'))
          OR (OLD.state = 'ISSUED' AND NEW.state = 'CREDITED')) THEN
    RAISE EXCEPTION 'invoice % is % and cannot become %', OLD.id, OLD.state, NEW.state USING ERRCODE = '23001';
  END IF;
  IF (NEW.id, NEW.tenant_id, NEW.currency, NEW.amount_nanos, NEW.to_at, NEW.legal_name, NEW.tax_id, NEW.address,
      NEW.bank_details, NEW.requested_by_id, NEW.requested_at) IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.currency, OLD.amount_nanos, OLD.to_at, OLD.legal_name, OLD.tax_id, OLD.address,
      OLD.bank_details, OLD.requested_by_id, OLD.requested_at)
     OR (OLD.state = 'ISSUED' AND (NEW.number, NEW.decided_by_id, NEW.decided_at) IS DISTINCT FROM
                                  (OLD.number, OLD.decided_by_id, OLD.decided_at)) THEN
    RAISE EXCEPTION 'what an invoice is about never changes' USING ERRCODE = '23001';
  END IF;
  IF NEW.state IN ('ISSUED', 'CREDITED') AND NOT EXISTS (
      SELECT 1 FROM quotas_invoicedocument WHERE invoice_id = NEW.id
        AND kind = CASE NEW.state WHEN 'ISSUED' THEN 'INVOICE' ELSE 'CREDIT_NOTE' END) THEN
    RAISE EXCEPTION 'invoice % has no document', NEW.id
      USING ERRCODE = '23514', CONSTRAINT = 'invoicerequest_has_document';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_invoice BEFORE INSERT OR UPDATE OR DELETE ON quotas_invoicerequest
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_invoice();

-- An invoice is its lines.
CREATE FUNCTION quotas_check_invoice_lines() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_invoice uuid;
BEGIN
  IF TG_TABLE_NAME = 'quotas_invoiceline' THEN
    v_invoice := NEW.invoice_id;
  ELSE
    v_invoice := NEW.id;
  END IF;
  IF (SELECT i.amount_nanos IS DISTINCT FROM
        (SELECT sum(l.amount_nanos) FROM quotas_invoiceline l WHERE l.invoice_id = i.id)
      FROM quotas_invoicerequest i WHERE i.id = v_invoice) THEN
    RAISE EXCEPTION 'the lines of invoice % do not add up', v_invoice
      USING ERRCODE = '23514', CONSTRAINT = 'invoicerequest_is_its_lines';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER quotas_check_invoice_lines AFTER INSERT ON quotas_invoicerequest
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_invoice_lines();
CREATE CONSTRAINT TRIGGER quotas_check_invoice_lines AFTER INSERT ON quotas_invoiceline
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_invoice_lines();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quotas_invoiceline
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quotas_invoicedocument
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();

-- What is stored is a PDF, by its first bytes, and as long as it says.
ALTER TABLE quotas_invoicedocument ADD CONSTRAINT invoicedocument_is_a_pdf CHECK (
  substring(content FROM 1 FOR 5) = '%PDF-'::bytea AND octet_length(content) = size_bytes);
-- Invoices are made out in whole minor units.
ALTER TABLE quotas_invoicerequest ADD CONSTRAINT invoicerequest_minor_units CHECK (amount_nanos % 10000000 = 0);
ALTER TABLE quotas_invoiceline ADD CONSTRAINT invoiceline_minor_units CHECK (amount_nanos % 10000000 = 0);
