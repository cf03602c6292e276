"""Organizations that pay afterwards: an invoice a month, dunning, suspension and return, credit notes.

agreements: who pays afterwards. drawing: what an invoice says, from the ledger. forwarding: the invoice at
Stripe. applying: what became of it. dunning: reminders and suspension. credit_notes: corrections.
"""

from quotas.payments.postpaid.applying import apply_invoice
from quotas.payments.postpaid.credit_notes import apply_credit_note
from quotas.payments.postpaid.drawing import DrawReport, draw_up_invoices
from quotas.payments.postpaid.dunning import DunningReport, remind_overdue

__all__ = [
    "DrawReport",
    "DunningReport",
    "apply_credit_note",
    "apply_invoice",
    "draw_up_invoices",
    "remind_overdue",
]
