"""What Stripe says about a monthly invoice becomes its state; what was paid is credited, once.

Webhook, poller, replay and dunning all end here: the invoice is read again, and what it says is applied.
Locks, in this order: the invoice, its top-up, the wallet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import transaction

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id
from portal.kit.money import from_minor_units, to_minor_units
from quotas.models import (
    OWED_INVOICE_STATES,
    AccountKind,
    MonthlyInvoice,
    MonthlyInvoiceState,
    OperationKind,
    StripeCustomer,
    StripeOperation,
    TopUp,
    TopUpSource,
)
from quotas.payments.client import stripe_client
from quotas.payments.fulfilment import PaidFacts, credit_top_up, describe_method
from quotas.payments.postpaid import mails
from quotas.payments.postpaid.credit_notes import adopt_credit_notes
from quotas.payments.receivables import review_receivable
from quotas.payments.sending import require_no_transaction
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

_AT_STRIPE: Final = ("payment_intent", "charge")
_OPENED: Final = ("state", "finalized_at", "due_at", "number", "pay_url", "pdf_url", "failure_text")
_OUT_OF_BAND: Final = "paid outside of Stripe"


class Mismatch(ValueError):
    """What Stripe's invoice says is not what ours asks for. Nothing is credited; operators have to look."""


def apply_invoice(*, invoice_id: str, now: datetime) -> bool:
    """Bring our invoice to the state that Stripe's has; false when it is none of ours. Safe to do again.

    invoice_id: Stripe's. Opens scopes of its own, outside every transaction. Errors:
    quotas.payments.sending.TransactionOpen, quotas.payments.client.PaymentsNotConfigured, stripe.StripeError.
    """
    require_no_transaction()
    found = _retrieve(invoice_id)
    with role_scope("operator"):
        invoice = _invoice_of(invoice_id, found)
    if invoice is None:
        return False
    if found is None:
        return _note_deleted(invoice, now)
    if found["status"] == "draft":
        return True
    adopt_credit_notes(invoice=invoice, found=found, now=now)
    payment = _payment_of(found) if found["status"] == "paid" else None
    try:
        with role_scope("operator"), transaction.atomic(using=scope_alias()):
            _apply(invoice.id, found, payment, now)
    except Mismatch as mismatch:
        logger.error("quotas.payments.mismatch", extra={"invoice": str(invoice), "field": str(mismatch)})
        with role_scope("operator"):
            MonthlyInvoice.objects.filter(id=invoice.id).update(failure_text=str(mismatch)[:500])
        return True
    review_receivable(tenant_id=invoice.tenant_id, now=now)
    return True


def net_minor_units(found: Mapping[str, Any]) -> int:
    """What an invoice of Stripe is over, without tax."""
    net = found.get("total_excluding_tax")
    return int(found["total"] if net is None else net)


def _retrieve(invoice_id: str) -> dict[str, Any] | None:
    try:
        return stripe_client().v1.invoices.retrieve(invoice_id, {"expand": ["payments"]}).to_dict()
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise


def _invoice_of(invoice_id: str, found: Mapping[str, Any] | None) -> MonthlyInvoice | None:
    """Ours: known by Stripe's id, or, while we do not know that, by the request that made it."""
    known = MonthlyInvoice.objects.filter(stripe_invoice_id=invoice_id).first()
    if known is not None or found is None:
        return known
    metadata = found.get("metadata") or {}
    try:
        named = parse_public_id(PREFIXES["monthly_invoice"], str(metadata.get("invoice", "")))
        operation_id = UUID(str(metadata.get("operation", "")))
    except (InvalidPublicId, ValueError):
        return None
    invoice = MonthlyInvoice.objects.filter(id=named, stripe_invoice_id=None).first()
    asked = StripeOperation.objects.filter(id=operation_id, kind=OperationKind.INVOICE, subject_id=named)
    if invoice is None or not asked.exists():
        return None
    MonthlyInvoice.objects.filter(id=named, stripe_invoice_id=None).update(stripe_invoice_id=invoice_id)
    invoice.refresh_from_db()
    return invoice


def _note_deleted(invoice: MonthlyInvoice, now: datetime) -> bool:
    """Somebody deleted the draft at Stripe: what it was about stands on the next one."""
    with role_scope("operator"):
        MonthlyInvoice.objects.filter(id=invoice.id, state=MonthlyInvoiceState.DRAFT).update(
            state=MonthlyInvoiceState.VOID, ended_at=now, failure_text="The draft was deleted at Stripe."
        )
    return True


def _payment_of(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The payment intent that paid an invoice, with its charge; None when it was paid outside of Stripe.
    In no transaction."""
    for payment in _paid_at_stripe(found):
        intent_id = payment["payment"].get("payment_intent")
        if intent_id:
            expand: Any = {"expand": ["latest_charge"]}
            return stripe_client().v1.payment_intents.retrieve(str(intent_id), expand).to_dict()
    return None


def _paid_at_stripe(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    payments = (found.get("payments") or {}).get("data") or []
    return [one for one in payments if one["status"] == "paid" and one["payment"]["type"] in _AT_STRIPE]


def _apply(invoice_id: UUID, found: Mapping[str, Any], payment: dict[str, Any] | None, now: datetime) -> None:
    """In a transaction, as operator. Errors: Mismatch."""
    invoice = MonthlyInvoice.objects.select_for_update(no_key=True).get(id=invoice_id)
    _check_same(invoice, found)
    if invoice.state == MonthlyInvoiceState.DRAFT:
        _open(invoice, found, now)
    if invoice.state not in OWED_INVOICE_STATES:
        return
    status = found["status"]
    if status == "paid":
        _pay(invoice, found, payment, now)
    elif status == "void":
        invoice.state, invoice.ended_at = MonthlyInvoiceState.VOID, now
        invoice.save(update_fields=["state", "ended_at"])
    elif status == "uncollectible" and invoice.state == MonthlyInvoiceState.OPEN:
        invoice.state = MonthlyInvoiceState.UNCOLLECTIBLE
        invoice.save(update_fields=["state"])


def _check_same(invoice: MonthlyInvoice, found: Mapping[str, Any]) -> None:
    """Errors: Mismatch."""
    customer = StripeCustomer.objects.filter(tenant_id=invoice.tenant_id).first()
    if customer is None or found["customer"] != customer.customer_id:
        raise Mismatch("another customer")
    if found["currency"] != invoice.currency.lower():
        raise Mismatch("another currency")
    if net_minor_units(found) != to_minor_units(invoice.amount_nanos, invoice.currency):
        raise Mismatch("another amount")
    if found.get("starting_balance"):
        raise Mismatch("a balance that the customer has at Stripe")


def _open(invoice: MonthlyInvoice, found: Mapping[str, Any], now: datetime) -> None:
    """It is final, and the organization is told."""
    due_at = found.get("due_date")
    invoice.state, invoice.finalized_at = MonthlyInvoiceState.OPEN, now
    invoice.due_at = datetime.fromtimestamp(due_at, UTC) if due_at else now
    invoice.number = str(found.get("number") or "")[:64]
    invoice.pay_url = found.get("hosted_invoice_url") or ""
    invoice.pdf_url = found.get("invoice_pdf") or ""
    invoice.failure_text = ""
    invoice.save(update_fields=_OPENED)
    mails.mail_invoice(invoice=invoice, now=now)


def _pay(
    invoice: MonthlyInvoice, found: Mapping[str, Any], payment: dict[str, Any] | None, now: datetime
) -> None:
    """Credit what was paid through the one function that does, under the invoice's own id."""
    if invoice.payable_nanos:
        paid = _paid_facts(invoice, found, payment)
        TopUp.objects.create(
            id=invoice.id,
            tenant_id=invoice.tenant_id,
            currency=invoice.currency,
            source=TopUpSource.INVOICE,
            amount_nanos=invoice.payable_nanos,
            created_at=now,
        )
        source = AccountKind.STRIPE_CLEARING if paid.charge_id else AccountKind.CASH_CLEARING
        credit_top_up(top_up_id=invoice.id, paid=paid, source_account=source, now=now)
        invoice.top_up_id = invoice.id
    invoice.state, invoice.ended_at, invoice.failure_text = MonthlyInvoiceState.PAID, now, ""
    invoice.save(update_fields=["state", "ended_at", "top_up", "failure_text"])


def _paid_facts(
    invoice: MonthlyInvoice, found: Mapping[str, Any], payment: dict[str, Any] | None
) -> PaidFacts:
    """Errors: Mismatch, when what came in is not what is to be paid, with the tax on it."""
    gross = int(found["total"]) - int(found.get("pre_payment_credit_notes_amount") or 0)
    at_stripe = sum(int(one["amount_paid"] or 0) for one in _paid_at_stripe(found))
    gross_nanos = from_minor_units(gross, invoice.currency)
    tax_nanos = gross_nanos - invoice.payable_nanos
    full_tax = sum(int(part["amount"]) for part in found.get("total_taxes") or ())
    if not 0 <= tax_nanos <= from_minor_units(full_tax, invoice.currency):
        raise Mismatch("another tax, or another credit note")
    if at_stripe not in (0, gross):
        raise Mismatch("paid at Stripe in part only")
    charge: dict[str, Any] = (payment or {}).get("latest_charge") or {}
    if at_stripe and not charge.get("id"):
        raise Mismatch("paid at Stripe without a charge")
    return PaidFacts(
        gross_nanos=gross_nanos,
        tax_nanos=tax_nanos,
        charge_id=str(charge["id"]) if at_stripe else "",
        method=describe_method(charge.get("payment_method_details") or {}) if at_stripe else _OUT_OF_BAND,
        receipt_url=charge.get("receipt_url") or "",
        invoice_url=invoice.pay_url,
        payment_intent_id=payment["id"] if payment else None,
    )
