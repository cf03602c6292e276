"""The invariants of payments: rows, transfers and Stripe's books say the same."""

from typing import Final

from quotas.audit.invariants import Invariant
from quotas.payments.stripe_matching import LINES_SQL

# What each paid top-up, refund, failed refund and movement of a dispute should have moved. By bank transfer
# money also comes in by an operator's word alone; through Stripe it does not.
_PAID_ONCE: Final = """
WITH moved AS (
  SELECT t.id, t.kind, t.tenant_id, t.currency,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'STRIPE_CLEARING'), 0) AS stripe,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'CASH_CLEARING'), 0) AS cash,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'TAX_PAYABLE'), 0) AS tax,
    coalesce(sum(e.amount_nanos) FILTER (WHERE a.tenant_id IS NOT NULL), 0) AS credit
  FROM quotas_ledgertransfer t
  JOIN quotas_ledgerentry e ON e.transfer_id = t.id
  JOIN quotas_ledgeraccount a ON a.id = e.account_id
  WHERE t.kind IN ('TOP_UP', 'REFUND', 'REFUND_REVERSED', 'CHARGEBACK', 'REINSTATED')
  GROUP BY t.id
), signed AS (
  SELECT 'top_up' AS what, id, transfer_id, 'TOP_UP' AS kind, tenant_id, currency,
    -- An invoice that was paid outside of Stripe came in at the bank.
    CASE WHEN source = 'INVOICE' AND charge_id = '' THEN 'BANK' ELSE source END AS source,
    -gross_nanos AS house, tax_nanos AS tax, amount_nanos AS credit
  FROM quotas_topup WHERE state = 'PAID'
  UNION ALL
  SELECT 'refund', r.id, m.transfer_id, m.kind, r.tenant_id, r.currency, t.source,
    m.sign * r.gross_nanos, -m.sign * r.tax_nanos, -m.sign * r.amount_nanos
  FROM quotas_refund r JOIN quotas_topup t ON t.id = r.top_up_id
  CROSS JOIN LATERAL (VALUES
    ('REFUND', r.transfer_id, 1), ('REFUND_REVERSED', r.reversal_id, -1)) AS m(kind, transfer_id, sign)
  WHERE m.kind = 'REFUND' OR r.state = 'FAILED'
  UNION ALL
  SELECT 'dispute', dispute_id, transfer_id,
    CASE WHEN taken_nanos > 0 THEN 'CHARGEBACK' ELSE 'REINSTATED' END,
    tenant_id, currency, 'CHECKOUT', taken_nanos, -tax_nanos, tax_nanos - taken_nanos
  FROM quotas_disputemovement
), due AS (
  SELECT what, id, transfer_id, kind, tenant_id, currency,
    CASE WHEN source = 'BANK' THEN 0 ELSE house END AS stripe,
    CASE WHEN source = 'BANK' THEN house ELSE 0 END AS cash, tax, credit
  FROM signed
)
SELECT coalesce(d.what, 'transfer'), coalesce(d.id, m.id)
FROM due d FULL JOIN moved m ON m.id = d.transfer_id
WHERE CASE WHEN d.id IS NULL THEN m.stripe <> 0 ELSE
    (m.kind, m.tenant_id, m.currency, m.stripe, m.cash, m.tax, m.credit)
    IS DISTINCT FROM (d.kind, d.tenant_id, d.currency, d.stripe, d.cash, d.tax, d.credit) END
UNION ALL
SELECT 'top_up', id FROM (
  SELECT id, session_id IS NOT NULL AND count(*) OVER (PARTITION BY session_id) > 1
    OR payment_intent_id IS NOT NULL AND count(*) OVER (PARTITION BY payment_intent_id) > 1
    OR charge_id <> '' AND count(*) OVER (PARTITION BY charge_id) > 1 AS is_doubled
  FROM quotas_topup WHERE state = 'PAID'
) t WHERE is_doubled
UNION ALL
SELECT 'refund', id FROM (
  SELECT id, count(*) OVER (PARTITION BY refund_id) AS times FROM quotas_refund WHERE refund_id IS NOT NULL
) r WHERE times > 1
UNION ALL
SELECT 'top_up', t.id FROM quotas_topup t
JOIN (
  SELECT top_up_id, sum(gross_nanos) AS gross_nanos FROM quotas_refund
  WHERE state <> 'FAILED' GROUP BY top_up_id
) r ON r.top_up_id = t.id
WHERE t.state <> 'PAID' OR r.gross_nanos > t.gross_nanos
"""

# Amounts differ at once; that one of two sides is missing counts when the other is older than a day.
_STRIPE_AGREES: Final = f"""
SELECT CASE WHEN transfer_id IS NULL THEN 'balance_transaction' ELSE 'transfer' END,
  coalesce(transfer_id::text, balance_transaction_id)
FROM ({LINES_SQL}) lines
WHERE stripe_nanos <> ledger_nanos
  OR ((stripe_nanos IS NULL OR ledger_nanos IS NULL) AND at < now() - interval '24 hours')
"""  # noqa: S608

# What a monthly invoice covers is told by times, so that whatever was posted late is found here: each invoice
# is still what the ledger says, and together they say what each organization owes.
_INVOICES: Final = """
SELECT 'monthly_invoice', i.id
FROM quotas_monthlyinvoice i
JOIN quotas_postpaidagreement a ON a.tenant_id = i.tenant_id
WHERE i.usage_nanos <> (SELECT coalesce(sum(t.paid_nanos), 0) FROM quotas_invoice_transfers(
    i.tenant_id, a.since, i.from_at, i.from_cut_at, i.to_at, i.cut_at) t)
UNION ALL
SELECT 'monthly_invoice', i.id
FROM quotas_monthlyinvoice i
LEFT JOIN quotas_monthlyinvoiceline l ON l.invoice_id = i.id
GROUP BY i.id
HAVING coalesce(sum(l.amount_nanos), 0) <> i.amount_nanos OR coalesce(sum(l.asked_nanos), 0) <> i.amount_nanos
  OR coalesce(sum(l.amount_nanos) FILTER (WHERE l.kind = 'USAGE'), 0) <> i.usage_nanos
UNION ALL
SELECT 'monthly_invoice', i.id
FROM quotas_monthlyinvoice i
LEFT JOIN quotas_creditnote n ON n.invoice_id = i.id AND n.state = 'ISSUED' AND NOT n.is_after_payment
GROUP BY i.id HAVING coalesce(sum(n.amount_nanos), 0) <> i.credited_nanos
UNION ALL
SELECT 'credit_note', n.id
FROM quotas_creditnote n
LEFT JOIN quotas_ledgerentry e ON e.transfer_id = n.transfer_id
  AND e.account_id = quotas_account_id(NULL, 'REVENUE', n.currency)
WHERE n.state = 'ISSUED' AND e.amount_nanos IS DISTINCT FROM -n.amount_nanos
"""

PAYMENT_INVARIANTS: Final = (
    Invariant("I7", "payments, refunds and disputes are posted once each", _PAID_ONCE),
    Invariant("I8", "Stripe's books and the clearing account agree", _STRIPE_AGREES),
    Invariant("I18", "monthly invoices are the usage that they cover", _INVOICES),
)
