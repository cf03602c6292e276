"""Invoices on request. Members ask, operators or an adapter issue; the same money is never invoiced twice.

What can be invoiced is the paid credit that was consumed, less all that Stripe has invoiced, less all that
was requested before: `quotas_guard_invoice` holds it in the database. A refusal, a cancellation or a credit
note frees an amount. Who requests locks the organization's billing profile; its wallet stays free for its
calls.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction

from portal.kit.ids import PREFIXES, public_id
from quotas.models import (
    MAX_DOCUMENT_BYTES,
    BillingProfile,
    DocumentKind,
    InvoiceDocument,
    InvoiceLine,
    InvoiceRequest,
    InvoiceState,
    ProfileState,
)
from quotas.payments import bank_mails as mails
from quotas.payments.invoice_queries import InvoiceRow, find_invoice, invoiceable, split_by_month
from tenants.operations import audit
from tenants.scope import scope_alias

MAX_NUMBER_LENGTH: Final = 64
_PDF_BEGINS: Final = b"%PDF-"
_PDF_ENDS: Final = b"%%EOF"
_END_WITHIN: Final = 1024


class ProfileNotVerified(ValueError):
    """No operator has verified the organization's legal name and tax id as they are now."""


class NothingToInvoice(ValueError):
    """All that was consumed until then is invoiced, requested, or less than the smallest coin."""


class InvoiceNotFound(LookupError):
    """There is no such invoice."""


class InvoiceDecided(ValueError):
    """The invoice is not in the state that this needs; `state` is which it has."""

    def __init__(self, state: InvoiceState) -> None:
        super().__init__(f"the invoice is {state.value.lower()}")
        self.state = state


class InvalidDocument(ValueError):
    """No PDF, not a whole one, or longer than MAX_DOCUMENT_BYTES."""


class InvalidNumber(ValueError):
    """The number is empty, too long, or cannot be printed."""


class NumberTaken(ValueError):
    """Another invoice, or another credit note, has this number."""


def request_invoice(
    *, tenant_id: UUID, actor: audit.Actor, now: datetime, to_at: datetime | None = None
) -> InvoiceRow:
    """Ask for an invoice over everything that was consumed before `to_at` (until now without one) and that
    no invoice covers. In the tenant's scope.

    Of two at once the second finds nothing left. Errors: ProfileNotVerified, NothingToInvoice.
    """
    if actor.user_id is None:
        raise ValueError("a member asks for an invoice")
    with transaction.atomic(using=scope_alias()):
        profile = BillingProfile.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()
        if profile is None or profile.state != ProfileState.VERIFIED:
            raise ProfileNotVerified("the legal name and the tax id are not verified")
        room = invoiceable(tenant_id=tenant_id, to_at=to_at)
        if room is None or not room.amount_nanos:
            raise NothingToInvoice("nothing is left to be invoiced")
        invoice = InvoiceRequest(
            tenant_id=tenant_id,
            currency=room.currency,
            amount_nanos=room.amount_nanos,
            to_at=to_at or now,
            legal_name=profile.legal_name,
            tax_id=profile.tax_id,
            address=profile.address,
            bank_details=profile.bank_details,
            requested_by_id=actor.user_id,
            requested_at=now,
        )
        _insert(invoice)
        lines = split_by_month(
            tenant_id=tenant_id, amount_nanos=room.amount_nanos, to_at=(to_at or now).astimezone(UTC)
        )
        InvoiceLine.objects.bulk_create(
            InvoiceLine(
                tenant_id=tenant_id, invoice_id=invoice.id, month=line.month, amount_nanos=line.amount_nanos
            )
            for line in lines
        )
        _record(actor, "invoice.request", invoice)
    return _row(invoice.id)


def cancel_invoice(*, tenant_id: UUID, invoice_id: UUID, actor: audit.Actor, now: datetime) -> InvoiceRow:
    """A member takes a request back that nobody has issued yet. In the tenant's scope.

    Errors: InvoiceNotFound, InvoiceDecided.
    """
    if actor.user_id is None:
        raise ValueError("a member cancels a request")
    with transaction.atomic(using=scope_alias()):
        # The database lets members change no more of an invoice than this, so no more is saved.
        invoice = _lock(invoice_id, InvoiceState.REQUESTED, tenant_id=tenant_id)
        _change(
            invoice, {"state": InvoiceState.CANCELLED, "cancelled_by_id": actor.user_id, "cancelled_at": now}
        )
        _record(actor, "invoice.cancel", invoice, before=InvoiceState.REQUESTED)
    return _row(invoice_id)


def issue_invoice(
    *, invoice_id: UUID, number: str, content: bytes, actor: audit.Actor, now: datetime, reason: str = ""
) -> InvoiceRow:
    """Give an invoice its number and its PDF, and mail the organization. As operator, or as the system when
    an adapter has made them. Of two at once one does, the other gets InvoiceDecided.

    content: at most MAX_DOCUMENT_BYTES. Errors: InvoiceNotFound, InvoiceDecided, InvalidNumber, NumberTaken,
    InvalidDocument.
    """
    number, content = checked_number(number), checked_pdf(content)
    with transaction.atomic(using=scope_alias()):
        invoice = _lock(invoice_id, InvoiceState.REQUESTED)
        _store(invoice, DocumentKind.INVOICE, content, now)
        _change(
            invoice,
            {
                "state": InvoiceState.ISSUED,
                "number": number,
                "decided_by_id": _deciding(actor),
                "decided_at": now,
            },
        )
        _record(actor, "invoice.issue", invoice, reason, before=InvoiceState.REQUESTED)
        mails.mail_invoice_issued(invoice=invoice, now=now)
    return _row(invoice_id)


def refuse_invoice(*, invoice_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> InvoiceRow:
    """An operator refuses a request; its amount can be requested again. reason: the members read it.

    Errors: ReasonMissing (of tenants.operations.audit), InvoiceNotFound, InvoiceDecided.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        invoice = _lock(invoice_id, InvoiceState.REQUESTED)
        _change(
            invoice,
            {
                "state": InvoiceState.REFUSED,
                "decided_by_id": audit.operator_id(actor),
                "decided_at": now,
                "decision_reason": reason,
            },
        )
        _record(actor, "invoice.refuse", invoice, reason, before=InvoiceState.REQUESTED)
        mails.mail_invoice_refused(invoice=invoice, now=now)
    return _row(invoice_id)


def credit_invoice(
    *, invoice_id: UUID, number: str, content: bytes, actor: audit.Actor, reason: str, now: datetime
) -> InvoiceRow:
    """A credit note takes an issued invoice back as a whole; its amount can be requested again.

    number, content: of the credit note. reason: the members read it. Errors: ReasonMissing (of
    tenants.operations.audit), InvoiceNotFound, InvoiceDecided, InvalidNumber, NumberTaken, InvalidDocument.
    """
    reason, number, content = audit.checked_reason(reason), checked_number(number), checked_pdf(content)
    with transaction.atomic(using=scope_alias()):
        invoice = _lock(invoice_id, InvoiceState.ISSUED)
        _store(invoice, DocumentKind.CREDIT_NOTE, content, now)
        _change(
            invoice,
            {
                "state": InvoiceState.CREDITED,
                "credit_number": number,
                "credited_by_id": audit.operator_id(actor),
                "credited_at": now,
                "credit_reason": reason,
            },
        )
        _record(actor, "invoice.credit", invoice, reason, before=InvoiceState.ISSUED)
        mails.mail_invoice_credited(invoice=invoice, now=now)
    return _row(invoice_id)


def checked_pdf(content: bytes) -> bytes:
    """A whole PDF that is not too long. Errors: InvalidDocument."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidDocument("the document is too long")
    if not content.startswith(_PDF_BEGINS) or _PDF_ENDS not in content[-_END_WITHIN:]:
        raise InvalidDocument("the document is no whole PDF")
    return content


def checked_number(number: str) -> str:
    """A number as it stands on paper, trimmed. Errors: InvalidNumber."""
    number = " ".join(number.split())
    if not 0 < len(number) <= MAX_NUMBER_LENGTH or not number.isprintable():
        raise InvalidNumber(f"a number has 1 to {MAX_NUMBER_LENGTH} characters")
    return number


def _deciding(actor: audit.Actor) -> UUID | None:
    return None if actor == audit.SYSTEM else audit.operator_id(actor)


def _insert(invoice: InvoiceRequest) -> None:
    try:
        with transaction.atomic(using=scope_alias()):
            invoice.save(force_insert=True)
    except IntegrityError as error:
        if _broken(error) != "invoicerequest_within_consumption":
            raise
        # Stripe invoiced a payment that came meanwhile.
        raise NothingToInvoice("what is left to be invoiced has changed") from error


def _broken(error: IntegrityError) -> str:
    """The name of the constraint."""
    return str(getattr(getattr(error.__cause__, "diag", None), "constraint_name", "") or "")


def _lock(invoice_id: UUID, state: InvoiceState, *, tenant_id: UUID | None = None) -> InvoiceRequest:
    """The invoice, which has this state."""
    invoices = InvoiceRequest.objects.select_for_update(no_key=True).filter(id=invoice_id)
    if tenant_id is not None:
        invoices = invoices.filter(tenant_id=tenant_id)
    invoice = invoices.first()
    if invoice is None:
        raise InvoiceNotFound("there is no such invoice")
    if invoice.state != state:
        raise InvoiceDecided(InvoiceState(invoice.state))
    return invoice


def _store(invoice: InvoiceRequest, kind: DocumentKind, content: bytes, now: datetime) -> None:
    InvoiceDocument.objects.create(
        tenant_id=invoice.tenant_id,
        invoice_id=invoice.id,
        kind=kind,
        content=content,
        size_bytes=len(content),
        created_at=now,
    )


def _change(invoice: InvoiceRequest, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(invoice, name, value)
    try:
        with transaction.atomic(using=scope_alias()):
            invoice.save(update_fields=list(values))
    except IntegrityError as error:
        if "number" in _broken(error):
            raise NumberTaken("another one has this number") from error
        raise


def _record(
    actor: audit.Actor,
    action: str,
    invoice: InvoiceRequest,
    reason: str = "",
    before: InvoiceState | None = None,
) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=invoice.tenant_id,
        target=public_id(PREFIXES["invoice"], invoice.id),
        before={"state": before.value} if before else {},
        after={
            "state": str(invoice.state),
            "amount_nanos": invoice.amount_nanos,
            "currency": invoice.currency,
            "number": invoice.number or "",
        },
        reason=reason,
    )


def _row(invoice_id: UUID) -> InvoiceRow:
    row = find_invoice(invoice_id=invoice_id)
    assert row is not None
    return row
