"""The Django admin's read-only pages of bank transfers and invoices on request. PDFs are not read there."""

from django.contrib import admin

from portal.backoffice.read_only import read_only
from quotas.models import (
    BankReceipt,
    BankReference,
    BillingProfile,
    InvoiceDocument,
    InvoiceLine,
    InvoiceRequest,
)

site = admin.site

site.register(
    BankReference,
    read_only("reference", "tenant", "created_by", "created_at", search=("reference",), newest_first=False),
)
site.register(
    BankReceipt,
    read_only(
        "id",
        "tenant",
        "state",
        "amount_nanos",
        "tax_nanos",
        "currency",
        "value_date",
        "bank_transaction_id",
        "recorded_by",
        "decided_by",
        search=("bank_transaction_id", "payer_name"),
        filters=("state", "currency"),
        id_prefix="bank_receipt",
    ),
)
site.register(
    BillingProfile,
    read_only(
        "tenant",
        "legal_name",
        "tax_id",
        "state",
        "changed_at",
        "decided_by",
        "decided_at",
        search=("legal_name", "tax_id"),
        filters=("state",),
    ),
)
site.register(
    InvoiceRequest,
    read_only(
        "id",
        "tenant",
        "state",
        "number",
        "amount_nanos",
        "currency",
        "legal_name",
        "requested_at",
        "decided_at",
        search=("number", "credit_number", "legal_name"),
        filters=("state",),
        id_prefix="invoice",
    ),
)
site.register(InvoiceLine, read_only("id", "tenant", "invoice", "month", "amount_nanos"))
site.register(
    InvoiceDocument,
    read_only("id", "tenant", "invoice", "kind", "size_bytes", "created_at", id_prefix="invoice_document"),
)
