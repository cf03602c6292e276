"""Corrections of invoices that are final: credit notes. The invoice itself is never edited.

Stripe is asked first; what it issued is posted in the transaction that notes it. Before the invoice is paid
that lowers what is to be paid, afterwards it is paid credit. Those that were made at Stripe are posted when
we hear of them. Locks, in this order: the operator's orders, the invoice, the credit note, the wallet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import transaction
from django.db.models import F, Sum

from portal.kit.ids import PREFIXES, public_id, transfer_id
from portal.kit.money import InvalidAmount, from_minor_units, to_minor_units
from quotas.ledger import payments as ledger
from quotas.models import (
    AccountKind,
    CreditNote,
    CreditNoteState,
    MonthlyInvoice,
    MonthlyInvoiceState,
    OperationKind,
    OperationState,
    StripeOperation,
    TransferKind,
)
from quotas.payments import giving_back, sending
from quotas.payments.client import stripe_client, stripe_config
from quotas.payments.customers import first_of
from quotas.payments.sending import Sent
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

MAX_NOTES: Final = 1_000
MADE_AT_STRIPE: Final = "Made at Stripe"
CORRECTABLE: Final = (
    MonthlyInvoiceState.OPEN,
    MonthlyInvoiceState.PAID,
    MonthlyInvoiceState.UNCOLLECTIBLE,
)


class InvoiceNotFound(LookupError):
    """There is no such invoice."""


class NotCorrectable(ValueError):
    """The invoice is not final, is void, or asked for nothing; or it was paid with tax, and what of that goes
    back is a refund of the payment. `state` is which it has."""

    def __init__(self, state: MonthlyInvoiceState) -> None:
        super().__init__(f"an invoice that is {state.value.lower()} takes no credit note")
        self.state = state


class InvalidCredit(ValueError):
    """The amount is not positive, no whole number of the currency's coins, or more than is left of the
    invoice; `most_nanos` is how much is."""

    def __init__(self, most_nanos: int) -> None:
        super().__init__(f"at most {most_nanos} nano-units, in whole coins")
        self.most_nanos = most_nanos


@dataclass(frozen=True, slots=True)
class Ordered:
    """A credit note and how far it is. It stays PENDING while Stripe has not answered."""

    credit_note_id: UUID
    state: CreditNoteState
    failure_text: str = ""


def order_credit_note(
    *, invoice_id: UUID, amount_nanos: int, reason: str, actor: audit.Actor, now: datetime
) -> Ordered:
    """Correct an invoice downwards: it is committed, then Stripe is asked, and what it issued is posted.

    amount_nanos: net of tax, in whole coins. reason: the organization reads it. Outside every transaction;
    opens scopes of its own. Errors: ReasonMissing (of tenants.operations.audit), InvoiceNotFound,
    NotCorrectable, InvalidCredit, AboveLimit (of quotas.payments.giving_back),
    quotas.payments.sending.TransactionOpen, quotas.payments.client.PaymentsNotConfigured.
    """
    sending.require_no_transaction()
    stripe_config()
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        giving_back.lock_orders_of(operator_id)
        invoice = _locked(invoice_id)
        _check_amount(invoice, amount_nanos)
        giving_back.check_limit(operator_id, amount_nanos, now)
        note = CreditNote.objects.create(
            tenant_id=invoice.tenant_id,
            currency=invoice.currency,
            invoice_id=invoice.id,
            amount_nanos=amount_nanos,
            is_after_payment=invoice.state == MonthlyInvoiceState.PAID,
            reason=reason,
            ordered_by_id=operator_id,
            ordered_at=now,
        )
        operation_id = sending.commit_operation(
            tenant_id=invoice.tenant_id,
            kind=OperationKind.CREDIT_NOTE,
            subject_id=note.id,
            parameters=_parameters(invoice, note),
            now=now,
        )
        _record(actor, "credit_note.order", note, reason)
    sending.send(operation_id=operation_id, now=now)
    with role_scope("operator"):
        note.refresh_from_db()
    return Ordered(note.id, CreditNoteState(note.state), note.failure_text)


def apply_credit_note(*, credit_note_id: str, now: datetime) -> bool:
    """Post a credit note of Stripe that we have not posted yet; false when it is of no invoice of ours.

    credit_note_id: Stripe's. Opens scopes of its own. Errors: quotas.payments.sending.TransactionOpen,
    stripe.StripeError.
    """
    sending.require_no_transaction()
    found = stripe_client().v1.credit_notes.retrieve(credit_note_id).to_dict()
    with role_scope("operator"):
        invoice = MonthlyInvoice.objects.filter(stripe_invoice_id=found["invoice"]).first()
    if invoice is None:
        return False
    _adopt(invoice, found, now)
    return True


def adopt_credit_notes(*, invoice: MonthlyInvoice, found: Mapping[str, Any], now: datetime) -> None:
    """The same for all credit notes of an invoice, where Stripe has more of them than we. found: Stripe's
    invoice. In no transaction; opens scopes of its own."""
    at_stripe = int(found.get("pre_payment_credit_notes_amount") or 0)
    at_stripe += int(found.get("post_payment_credit_notes_amount") or 0)
    with role_scope("operator"):
        issued = CreditNote.objects.filter(invoice_id=invoice.id, state=CreditNoteState.ISSUED)
        known_nanos = int(issued.aggregate(sum=Sum("amount_nanos"))["sum"] or 0)
    if from_minor_units(at_stripe, invoice.currency) == known_nanos:
        return
    listed = stripe_client().v1.credit_notes.list({"invoice": found["id"], "limit": 100})
    for count, one in enumerate(listed.auto_paging_iter()):
        if count >= MAX_NOTES:
            break
        _adopt(invoice, one.to_dict(), now)


def _adopt(invoice: MonthlyInvoice, found: Mapping[str, Any], now: datetime) -> None:
    if found["status"] != "issued":
        # One that was posted and is void now has to be looked at: what it gave back may be spent.
        logger.warning("quotas.payments.credit_note_void", extra={"credit_note": found["id"]})
        return
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        locked = _locked(invoice.id)
        note = _known(found)
        if note is None:
            note = CreditNote.objects.create(
                tenant_id=locked.tenant_id,
                currency=locked.currency,
                invoice_id=locked.id,
                amount_nanos=from_minor_units(_net(found), locked.currency),
                is_after_payment=found["type"] == "post_payment",
                reason=(found.get("memo") or MADE_AT_STRIPE)[:500],
                ordered_at=now,
            )
            _record(audit.SYSTEM, "credit_note.found", note, MADE_AT_STRIPE)
        _issue(note, found, now)


def _known(found: Mapping[str, Any]) -> CreditNote | None:
    """Our row: of Stripe's id, or of the request that asked for it and may not know its answer yet."""
    known = CreditNote.objects.filter(credit_note_id=found["id"]).first()
    if known is not None:
        return known
    try:
        operation_id = UUID(str((found.get("metadata") or {}).get("operation", "")))
    except ValueError:
        return None
    asked = StripeOperation.objects.filter(id=operation_id, kind=OperationKind.CREDIT_NOTE).first()
    if asked is None or asked.subject_id is None:
        return None
    return CreditNote.objects.filter(id=asked.subject_id, state=CreditNoteState.PENDING).first()


def _issue(note: CreditNote, found: Mapping[str, Any], now: datetime) -> None:
    """Post it, once. In a transaction, as operator; the caller has locked the invoice."""
    if note.state != CreditNoteState.PENDING:
        return
    posted_id = transfer_id(TransferKind.ADJUSTMENT, f"credit_note:{note.id}")
    ledger.pay_in(
        transfer_id=posted_id,
        kind=TransferKind.ADJUSTMENT,
        tenant_id=note.tenant_id,
        amount_nanos=note.amount_nanos,
        source=AccountKind.REVENUE,
        reason=f"Credit note ({note})",
    )
    note.state, note.transfer_id, note.ended_at = CreditNoteState.ISSUED, posted_id, now
    note.credit_note_id = found["id"]
    note.number, note.pdf_url = str(found.get("number") or "")[:64], found.get("pdf") or ""
    note.save(update_fields=["state", "transfer_id", "ended_at", "credit_note_id", "number", "pdf_url"])
    if not note.is_after_payment:
        MonthlyInvoice.objects.filter(id=note.invoice_id).update(
            credited_nanos=F("credited_nanos") + note.amount_nanos
        )


def _net(found: Mapping[str, Any]) -> int:
    net = found.get("total_excluding_tax")
    return int(found["total"] if net is None else net)


def _locked(invoice_id: UUID) -> MonthlyInvoice:
    invoice = MonthlyInvoice.objects.select_for_update(no_key=True).filter(id=invoice_id).first()
    if invoice is None:
        raise InvoiceNotFound("there is no such invoice")
    return invoice


def left_to_credit(invoice: MonthlyInvoice) -> int:
    """How much of an invoice no credit note takes back yet, in nano-units."""
    notes = CreditNote.objects.filter(invoice_id=invoice.id).exclude(state=CreditNoteState.FAILED)
    return invoice.amount_nanos - int(notes.aggregate(sum=Sum("amount_nanos"))["sum"] or 0)


def is_correctable(invoice: MonthlyInvoice) -> bool:
    """Whether an invoice takes credit notes. Of one that was paid with tax, what goes back takes its tax with
    it: that is a refund of its payment."""
    if invoice.state == MonthlyInvoiceState.PAID and invoice.top_up is not None and invoice.top_up.tax_nanos:
        return False
    return invoice.state in CORRECTABLE


def _check_amount(invoice: MonthlyInvoice, amount_nanos: int) -> None:
    if not is_correctable(invoice):
        raise NotCorrectable(MonthlyInvoiceState(invoice.state))
    most_nanos = left_to_credit(invoice)
    try:
        to_minor_units(amount_nanos, invoice.currency)
    except InvalidAmount as error:
        raise InvalidCredit(most_nanos) from error
    if not 0 < amount_nanos <= most_nanos:
        raise InvalidCredit(most_nanos)


def _parameters(invoice: MonthlyInvoice, note: CreditNote) -> dict[str, Any]:
    amount = to_minor_units(note.amount_nanos, note.currency)
    line = {"type": "custom_line_item", "description": "Correction", "quantity": 1, "unit_amount": amount}
    return {
        "invoice": invoice.stripe_invoice_id,
        "lines": [line],
        "memo": note.reason,
        "metadata": {"invoice": str(invoice), "credit_note": str(note)},
        # What was paid already becomes credit here, not a balance at Stripe.
        **({"out_of_band_amount": amount} if note.is_after_payment else {}),
    }


def _record(actor: audit.Actor, action: str, note: CreditNote, reason: str) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=note.tenant_id,
        target=str(note),
        after={
            "invoice": public_id(PREFIXES["monthly_invoice"], note.invoice_id),
            "amount_nanos": note.amount_nanos,
            "currency": note.currency,
            "is_after_payment": note.is_after_payment,
        },
        reason=reason,
    )


def _create(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.credit_notes.create(operation.parameters, options)


def _finish(*, operation: StripeOperation, sent: Sent, now: datetime) -> None:
    """In the transaction that ends the operation."""
    assert operation.subject_id is not None
    note = CreditNote.objects.get(id=operation.subject_id)
    _locked(note.invoice_id)
    note.refresh_from_db()
    if sent.state == OperationState.DONE:
        _issue(note, sent.data or {"id": sent.object_id}, now)
    elif note.state == CreditNoteState.PENDING:
        note.state, note.ended_at = CreditNoteState.FAILED, now
        note.failure_text = sent.error_text or sent.error_code
        note.save(update_fields=["state", "ended_at", "failure_text"])


def _look_up(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    listed = client.v1.credit_notes.list({"invoice": operation.parameters["invoice"], "limit": 100})
    return first_of(listed, operation)


sending.CALLS[OperationKind.CREDIT_NOTE] = _create
sending.FINISHERS[OperationKind.CREDIT_NOTE] = _finish
sending.LOOKUPS[OperationKind.CREDIT_NOTE] = _look_up
