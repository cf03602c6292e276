"""Recording money that came in by bank transfer, and deciding about it. All of it as operator.

One operator records a line of the bank's statement, another one approves it; that buys credit through the
same function as every other payment. Locks, in this order: the receipt, its top-up, the wallet.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from django.db import IntegrityError, transaction

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from quotas.models import (
    MAX_ORDER_NANOS,
    AccountKind,
    BankReceipt,
    BankReference,
    ReceiptState,
    TopUp,
    TopUpSource,
    Wallet,
)
from quotas.payments import fulfilment, receivables
from quotas.payments.bank_mails import mail_transfer_credited
from quotas.payments.bank_queries import ReceiptRow, find_receipt
from quotas.payments.bank_references import find_references
from tenants.operations import audit
from tenants.scope import scope_alias

METHOD: Final = "bank transfer"
MAX_LINE_LENGTH: Final = 100
MAX_PAYER_LENGTH: Final = 200
# Banks date what they book ahead, across time zones and holidays.
MAX_AHEAD: Final = timedelta(days=7)


class InvalidReceipt(ValueError):
    """The amounts, the value date, the payer or the bank's name for the line are none."""


class PayerUnknown(LookupError):
    """The text names no organization: it holds no transfer reference of one, nor is it an org_ id; or it
    holds references of several."""


class WrongCurrency(ValueError):
    """The organization's wallet has another currency; `currency` is which."""

    def __init__(self, currency: str) -> None:
        super().__init__(f"the organization's currency is {currency}")
        self.currency = currency


class AlreadyRecorded(ValueError):
    """The bank's line is recorded already, and neither refused nor withdrawn; `receipt_id` is as what."""

    def __init__(self, receipt_id: UUID | None) -> None:
        super().__init__("this line of the bank's statement is recorded already")
        self.receipt_id = receipt_id


class ReceiptNotFound(LookupError):
    """There is no such receipt."""


class ReceiptDecided(ValueError):
    """The receipt was approved, refused or withdrawn before."""

    def __init__(self, state: ReceiptState) -> None:
        super().__init__(f"the receipt is {state.value.lower()} already")
        self.state = state


class OwnReceipt(PermissionError):
    """Whoever recorded it does not decide about it."""


class NotYourReceipt(PermissionError):
    """Only who recorded it withdraws it."""


@dataclass(frozen=True, slots=True)
class BankLine:
    """A line of our bank's statement. amount_nanos came in, tax_nanos of it is tax, both nano-units of
    `currency`. transaction_id: the bank's own name for the line."""

    currency: str
    amount_nanos: int
    value_date: date
    transaction_id: str
    payer_name: str
    tax_nanos: int = 0


def record_receipt(
    *, payee: str, line: BankLine, reason: str, actor: audit.Actor, now: datetime
) -> ReceiptRow:
    """Record what came in; it waits for a second operator, and credits nothing yet.

    payee: a transfer reference or a text that holds one, or the public id of an organization. The same line
    of the bank is recorded once. Errors: InvalidReceipt, PayerUnknown, WrongCurrency, AlreadyRecorded,
    ReasonMissing (of tenants.operations.audit).
    """
    operator_id, reason = audit.operator_id(actor), audit.checked_reason(reason)
    line = _checked(line, now)
    with transaction.atomic(using=scope_alias()):
        tenant_id, reference = _payee(payee)
        currency = Wallet.objects.values_list("currency", flat=True).filter(tenant_id=tenant_id).first()
        if currency is None:
            raise PayerUnknown("there is no such organization")
        if currency != line.currency:
            raise WrongCurrency(currency)
        receipt = BankReceipt(
            tenant_id=tenant_id,
            currency=currency,
            reference_id=reference,
            amount_nanos=line.amount_nanos,
            tax_nanos=line.tax_nanos,
            value_date=line.value_date,
            bank_transaction_id=line.transaction_id,
            payer_name=line.payer_name,
            reason=reason,
            recorded_by_id=operator_id,
            recorded_at=now,
        )
        _insert(receipt)
        _record(actor, "bank.record", receipt, reason)
    return _row(receipt.id)


def approve_receipt(*, receipt_id: UUID, actor: audit.Actor, now: datetime, reason: str = "") -> ReceiptRow:
    """A second operator credits what came in. Of two at once one does, the other gets ReceiptDecided.

    Errors: ReceiptNotFound, ReceiptDecided, OwnReceipt.
    """
    operator_id = audit.operator_id(actor)
    with transaction.atomic(using=scope_alias()):
        receipt = _lock(receipt_id)
        if receipt.recorded_by_id == operator_id:
            raise OwnReceipt("whoever recorded it does not approve it")
        receipt.top_up_id = _credit(receipt, now)
        _decide(receipt, ReceiptState.APPROVED, operator_id, _short(reason), now)
        _record(actor, "bank.approve", receipt, reason)
        mail_transfer_credited(receipt=receipt, now=now)
        # Whoever was suspended for a debt that this has paid is resumed; a sweep finds what got lost here.
        review = partial(receivables.review_receivable, tenant_id=receipt.tenant_id, now=now)
        transaction.on_commit(review, using=scope_alias(), robust=True)
    return _row(receipt_id)


def refuse_receipt(*, receipt_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> ReceiptRow:
    """A second operator refuses a receipt; the line may be recorded again then.

    Errors: ReasonMissing, ReceiptNotFound, ReceiptDecided, OwnReceipt.
    """
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with transaction.atomic(using=scope_alias()):
        receipt = _lock(receipt_id)
        if receipt.recorded_by_id == operator_id:
            raise OwnReceipt("whoever recorded it withdraws it instead")
        _decide(receipt, ReceiptState.REFUSED, operator_id, reason, now)
        _record(actor, "bank.refuse", receipt, reason)
    return _row(receipt_id)


def withdraw_receipt(*, receipt_id: UUID, actor: audit.Actor, now: datetime, reason: str = "") -> ReceiptRow:
    """The operator takes a receipt back that waits.

    Errors: ReceiptNotFound, ReceiptDecided, NotYourReceipt.
    """
    operator_id = audit.operator_id(actor)
    with transaction.atomic(using=scope_alias()):
        receipt = _lock(receipt_id)
        if receipt.recorded_by_id != operator_id:
            raise NotYourReceipt("somebody else recorded it; refuse it instead")
        _decide(receipt, ReceiptState.WITHDRAWN, operator_id, _short(reason), now)
        _record(actor, "bank.withdraw", receipt, reason)
    return _row(receipt_id)


def _short(reason: str) -> str:
    return " ".join(reason.split())[: audit.MAX_REASON_LENGTH]


def _checked(line: BankLine, now: datetime) -> BankLine:
    name = re.sub(r"\s", "", unicodedata.normalize("NFKC", _seen(line.transaction_id))).upper()
    payer = " ".join(_seen(line.payer_name).split())
    is_said = 0 < len(name) <= MAX_LINE_LENGTH and 0 < len(payer) <= MAX_PAYER_LENGTH
    if not is_said or not (name + payer).isprintable():
        raise InvalidReceipt("the bank's name for the line and the payer are needed")
    if not 0 <= line.tax_nanos < line.amount_nanos <= MAX_ORDER_NANOS:
        raise InvalidReceipt("the amount is not one that can be credited")
    if line.value_date > (now + MAX_AHEAD).date():
        raise InvalidReceipt("the value date is in the future")
    return BankLine(line.currency, line.amount_nanos, line.value_date, name, payer, line.tax_nanos)


def _seen(text: str) -> str:
    """Without signs that nobody sees and that come with what is copied: they make no other text."""
    return "".join(sign for sign in text if unicodedata.category(sign) != "Cf")


def _payee(text: str) -> tuple[UUID, str | None]:
    """Whose money it is, and by which reference."""
    try:
        return parse_public_id(PREFIXES["organization"], text.strip()), None
    except InvalidPublicId:
        pass
    known = BankReference.objects.filter(reference__in=find_references(text))[:2]
    if len(known) != 1:
        raise PayerUnknown("the text names no organization")
    return known[0].tenant_id, known[0].reference


def _insert(receipt: BankReceipt) -> None:
    try:
        with transaction.atomic(using=scope_alias()):
            receipt.save(force_insert=True)
    except IntegrityError as error:
        if "bankreceipt_line_once" not in str(error):
            raise
        same = BankReceipt.objects.filter(
            currency=receipt.currency,
            bank_transaction_id=receipt.bank_transaction_id,
            state__in=[ReceiptState.WAITING, ReceiptState.APPROVED],
        )
        raise AlreadyRecorded(same.values_list("id", flat=True).first()) from error


def _lock(receipt_id: UUID) -> BankReceipt:
    """The receipt, which waits."""
    receipt = BankReceipt.objects.select_for_update(no_key=True).filter(id=receipt_id).first()
    if receipt is None:
        raise ReceiptNotFound("there is no such receipt")
    if receipt.state != ReceiptState.WAITING:
        raise ReceiptDecided(ReceiptState(receipt.state))
    return receipt


def _credit(receipt: BankReceipt, now: datetime) -> UUID:
    """Credit the top-up that has the receipt's own id, whatever else is tried with it."""
    TopUp.objects.create(
        id=receipt.id,
        tenant_id=receipt.tenant_id,
        currency=receipt.currency,
        source=TopUpSource.BANK,
        amount_nanos=receipt.amount_nanos - receipt.tax_nanos,
        created_at=now,
    )
    fulfilment.credit_top_up(
        top_up_id=receipt.id,
        paid=fulfilment.PaidFacts(
            gross_nanos=receipt.amount_nanos, tax_nanos=receipt.tax_nanos, charge_id="", method=METHOD
        ),
        source_account=AccountKind.CASH_CLEARING,
        now=now,
    )
    return receipt.id


def _decide(receipt: BankReceipt, state: ReceiptState, decided_by: UUID, reason: str, now: datetime) -> None:
    receipt.state, receipt.decided_by_id, receipt.decided_at = state, decided_by, now
    receipt.decision_reason = reason
    receipt.save(update_fields=["state", "decided_by", "decided_at", "decision_reason", "top_up"])


def _record(actor: audit.Actor, action: str, receipt: BankReceipt, reason: str) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=receipt.tenant_id,
        target=public_id(PREFIXES["bank_receipt"], receipt.id),
        before={} if action == "bank.record" else {"state": ReceiptState.WAITING.value},
        after={
            "state": str(receipt.state),
            "amount_nanos": receipt.amount_nanos,
            "tax_nanos": receipt.tax_nanos,
            "currency": receipt.currency,
            "bank_transaction_id": receipt.bank_transaction_id,
        },
        reason=reason,
        is_internal=True,
    )


def _row(receipt_id: UUID) -> ReceiptRow:
    row = find_receipt(receipt_id=receipt_id)
    assert row is not None
    return row
