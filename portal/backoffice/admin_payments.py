"""The Django admin's read-only pages of payments. What they mean is shown on the operators' own pages."""

from django.contrib import admin

from portal.backoffice.read_only import read_only
from quotas.models import (
    AutoRecharge,
    BalanceTransaction,
    CreditNote,
    Dispute,
    DisputeMovement,
    MonthlyInvoice,
    MonthlyInvoiceLine,
    PollCursor,
    PostpaidAgreement,
    Refund,
    StripeCustomer,
    StripeEvent,
    StripeOperation,
    TopUp,
)

site = admin.site

site.register(StripeCustomer, read_only("tenant", "customer_id", "created_at", search=("customer_id",)))
site.register(
    TopUp,
    read_only(
        "id",
        "tenant",
        "source",
        "state",
        "amount_nanos",
        "tax_nanos",
        "currency",
        "created_at",
        "ended_at",
        # Whoever has the address of an open page may pay there in the organization's name.
        hidden=("pay_url",),
        search=("session_id", "payment_intent_id", "charge_id"),
        filters=("state", "source"),
        id_prefix="top_up",
    ),
)
site.register(
    Refund,
    read_only(
        "id",
        "tenant",
        "top_up",
        "state",
        "amount_nanos",
        "tax_nanos",
        "currency",
        "ordered_by",
        "ordered_at",
        search=("refund_id",),
        filters=("state",),
        id_prefix="refund",
    ),
)
site.register(
    Dispute,
    read_only(
        "id",
        "tenant",
        "top_up",
        "dispute_id",
        "status",
        "amount_nanos",
        "currency",
        "opened_at",
        "closed_at",
        search=("dispute_id", "charge_id"),
        filters=("status",),
        id_prefix="dispute",
    ),
)
site.register(
    DisputeMovement,
    read_only(
        "balance_transaction_id",
        "tenant",
        "dispute",
        "taken_nanos",
        "currency",
        "posted_at",
        search=("balance_transaction_id",),
    ),
)
site.register(
    AutoRecharge,
    read_only(
        "tenant", "state", "threshold_nanos", "amount_nanos", "monthly_cap_nanos", "declines", "changed_at"
    ),
)
site.register(
    StripeOperation,
    read_only(
        "id",
        "tenant",
        "kind",
        "state",
        "object_id",
        "error_code",
        "attempts",
        "created_at",
        search=("object_id",),
        filters=("state", "kind"),
        id_prefix="stripe_operation",
    ),
)
site.register(
    StripeEvent,
    read_only(
        "id",
        "type",
        "object_id",
        "source",
        "state",
        "attempts",
        "created_at",
        "processed_at",
        # May hold what a payment is confirmed with; the page of the event leaves that out.
        hidden=("payload",),
        search=("id", "object_id"),
        filters=("state", "source"),
        newest_first=False,
    ),
)
site.register(PollCursor, read_only("name", "read_to", "polled_at", "error", newest_first=False))
site.register(
    BalanceTransaction,
    read_only(
        "id",
        "type",
        "currency",
        "amount_nanos",
        "fee_nanos",
        "source_id",
        "created_at",
        "available_at",
        search=("id", "source_id"),
        filters=("type", "currency"),
        newest_first=False,
    ),
)
site.register(
    PostpaidAgreement,
    read_only("tenant", "is_on", "since", "days_until_due", "changed_by", "changed_at", newest_first=False),
)
site.register(
    MonthlyInvoice,
    read_only(
        "id",
        "tenant",
        "month",
        "state",
        "dunning",
        "amount_nanos",
        "currency",
        "due_at",
        "ended_at",
        # Whoever has the address may pay there in the organization's name.
        hidden=("pay_url", "pdf_url"),
        search=("stripe_invoice_id", "number"),
        filters=("state", "dunning"),
        id_prefix="monthly_invoice",
    ),
)
site.register(
    MonthlyInvoiceLine,
    read_only(
        "id", "tenant", "invoice", "kind", "model", "token_class", "units", "amount_nanos", filters=("kind",)
    ),
)
site.register(
    CreditNote,
    read_only(
        "id",
        "tenant",
        "invoice",
        "state",
        "amount_nanos",
        "currency",
        "ordered_by",
        "ordered_at",
        hidden=("pdf_url",),
        search=("credit_note_id", "number"),
        filters=("state",),
        id_prefix="credit_note",
    ),
)
