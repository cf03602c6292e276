"""Payments for tests, as rows that the ledger agrees with. Nobody asks Stripe: its ids are made up."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from portal.kit.clock import utc_now
from portal.kit.ids import transfer_id, uuid7
from portal.kit.money import amount_to_decimal_text, parse_amount
from quotas.ledger.payments import move_house, pay_back, pay_in
from quotas.models import (
    OPEN_TOP_UP_STATES,
    AccountKind,
    AutoRecharge,
    BalanceTransaction,
    BankReceipt,
    Dispute,
    DisputeMovement,
    EventSource,
    EventState,
    OperationKind,
    OperationState,
    PollCursor,
    ReceiptState,
    RechargeState,
    Refund,
    RefundState,
    StripeCustomer,
    StripeEvent,
    StripeOperation,
    TopUp,
    TopUpSource,
    TopUpState,
    TransferKind,
)
from tenants.scope import role_scope
from tests.factories import TenantFixture
from tests.people import make_person

DAY = timedelta(days=1)


def stripe_id(prefix: str) -> str:
    """An id as Stripe makes them, of nothing."""
    return f"{prefix}_test_{secrets.token_hex(12)}"


def make_customer(tenant: TenantFixture) -> str:
    """The organization is a customer at Stripe; the customer's id."""
    with role_scope("operator"):
        row, _made = StripeCustomer.objects.get_or_create(
            tenant_id=tenant.id, defaults={"customer_id": stripe_id("cus")}
        )
    return str(row.customer_id)


def make_top_up(
    tenant: TenantFixture,
    *,
    amount: str = "20.00",
    tax: str = "0",
    state: TopUpState = TopUpState.PAID,
    source: TopUpSource = TopUpSource.CHECKOUT,
    at: datetime | None = None,
    **fields: Any,
) -> UUID:
    """A top-up in this state; one that is paid is credited. amount: the credit, net of tax, as decimal text.

    Other fields are those of TopUp.
    """
    at = at or utc_now()
    is_bank = source == TopUpSource.BANK
    if is_bank and state == TopUpState.PAID:
        # Nothing but a receipt that two operators have seen makes one.
        from tests.factories_bank import make_receipt

        gross = amount_to_decimal_text(parse_amount(amount) + parse_amount(tax))
        return make_receipt(tenant, amount=gross, tax=tax, is_approved=True).id
    values: dict[str, Any] = {
        "tenant_id": tenant.id,
        "currency": tenant.currency,
        "source": source,
        "amount_nanos": parse_amount(amount),
        "session_id": stripe_id("cs") if source == TopUpSource.CHECKOUT else None,
        "payment_intent_id": None if is_bank else stripe_id("pi"),
        "created_at": at,
        "expires_at": at + DAY,
    }
    with role_scope("operator"), transaction.atomic(using="operator"):
        top_up = TopUp.objects.create(**(values | fields))
        if state == TopUpState.PAID:
            _pay(top_up, tax_nanos=parse_amount(tax), at=at)
        elif state != TopUpState.OPEN:
            ended_at = None if state in OPEN_TOP_UP_STATES else at
            TopUp.objects.filter(id=top_up.id).update(state=state, ended_at=ended_at)
    return top_up.id


def _pay(top_up: TopUp, *, tax_nanos: int, at: datetime) -> None:
    paid_id = transfer_id(TransferKind.TOP_UP, f"topup:{top_up.id}")
    is_bank = top_up.source == TopUpSource.BANK
    pay_in(
        transfer_id=paid_id,
        kind=TransferKind.TOP_UP,
        tenant_id=top_up.tenant_id,
        amount_nanos=top_up.amount_nanos,
        tax_nanos=tax_nanos,
        source=AccountKind.CASH_CLEARING if is_bank else AccountKind.STRIPE_CLEARING,
        reason="for the test",
    )
    TopUp.objects.filter(id=top_up.id).update(
        state=TopUpState.PAID,
        tax_nanos=tax_nanos,
        gross_nanos=top_up.amount_nanos + tax_nanos,
        charge_id="" if is_bank else top_up.charge_id or stripe_id("ch"),
        method=top_up.method or ("" if is_bank else "visa \N{MIDDLE DOT}\N{MIDDLE DOT} 4242"),
        transfer_id=paid_id,
        ended_at=at,
    )
    if is_bank:
        _receive(TopUp.objects.get(id=top_up.id), at)


def _receive(top_up: TopUp, at: datetime) -> None:
    """What a bank transfer brought was recorded by one operator and approved by another."""
    recorder, approver = (make_person("operator", is_staff=True).id for _ in range(2))
    BankReceipt.objects.create(
        id=top_up.id,
        tenant_id=top_up.tenant_id,
        currency=top_up.currency,
        amount_nanos=top_up.gross_nanos or 0,
        tax_nanos=top_up.tax_nanos or 0,
        value_date=at.date(),
        bank_transaction_id=uuid7().hex.upper(),
        payer_name="Test Ltd.",
        reason="for the test",
        recorded_by_id=recorder,
        recorded_at=at,
    )
    BankReceipt.objects.filter(id=top_up.id).update(
        state=ReceiptState.APPROVED, decided_by_id=approver, decided_at=at, top_up_id=top_up.id
    )


def make_refund(
    top_up_id: UUID,
    *,
    amount: str = "5.00",
    tax: str = "0",
    state: RefundState = RefundState.SUCCEEDED,
    ordered_by_id: UUID | None = None,
    reason: str = "for the test",
    at: datetime | None = None,
) -> UUID:
    """Money of a paid top-up that went back; of one that failed, the money is credited again."""
    at, refund_id = at or utc_now(), uuid7()
    amount_nanos, tax_nanos = parse_amount(amount), parse_amount(tax)
    with role_scope("operator"), transaction.atomic(using="operator"):
        top_up = TopUp.objects.get(id=top_up_id)
        money: dict[str, Any] = {
            "tenant_id": top_up.tenant_id,
            "amount_nanos": amount_nanos,
            "tax_nanos": tax_nanos,
        }
        debit_id = transfer_id(TransferKind.REFUND, f"refund:{refund_id}")
        pay_back(
            transfer_id=debit_id, kind=TransferKind.REFUND, is_forced=False, reason="for the test", **money
        )
        Refund.objects.create(
            id=refund_id,
            currency=top_up.currency,
            top_up=top_up,
            gross_nanos=amount_nanos + tax_nanos,
            reason=reason,
            ordered_by_id=ordered_by_id,
            ordered_at=at,
            transfer_id=debit_id,
            **money,
        )
        if state != RefundState.PENDING:
            _end(refund_id, state, money, at)
    return refund_id


def _end(refund_id: UUID, state: RefundState, money: Mapping[str, Any], at: datetime) -> None:
    credit_id = None
    if state == RefundState.FAILED:
        credit_id = transfer_id(TransferKind.REFUND_REVERSED, f"refund:{refund_id}")
        pay_in(transfer_id=credit_id, kind=TransferKind.REFUND_REVERSED, reason="for the test", **money)
    Refund.objects.filter(id=refund_id).update(
        state=state, refund_id=stripe_id("re"), reversal_id=credit_id, ended_at=at
    )


def make_dispute(
    top_up_id: UUID,
    *,
    amount: str | None = None,
    status: str = "needs_response",
    is_withdrawn: bool = True,
    is_reinstated: bool = False,
    at: datetime | None = None,
) -> UUID:
    """The bank wants a paid top-up back. amount: decimal text; without one, all that was paid.

    is_withdrawn: the money is taken; what paid credit cannot cover is owed then. is_reinstated: it is given
    back again.
    """
    at = at or utc_now()
    is_closed = status in ("won", "lost", "warning_closed")
    with role_scope("operator"), transaction.atomic(using="operator"):
        top_up = TopUp.objects.get(id=top_up_id)
        amount_nanos = parse_amount(amount) if amount is not None else top_up.gross_nanos or 0
        dispute = Dispute.objects.create(
            tenant_id=top_up.tenant_id,
            currency=top_up.currency,
            top_up=top_up,
            dispute_id=stripe_id("dp"),
            charge_id=top_up.charge_id,
            amount_nanos=amount_nanos,
            status=status,
            reason="fraudulent",
            opened_at=at,
            evidence_due_at=at + 7 * DAY,
            closed_at=at if is_closed else None,
        )
        if is_withdrawn:
            _move(dispute, amount_nanos)
        if is_reinstated:
            _move(dispute, -amount_nanos)
    return dispute.id


def _move(dispute: Dispute, taken_nanos: int) -> None:
    line_id = stripe_id("txn")
    kind = TransferKind.CHARGEBACK if taken_nanos > 0 else TransferKind.REINSTATED
    moved_id = transfer_id(kind, f"dispute:{line_id}")
    money: dict[str, Any] = {"transfer_id": moved_id, "kind": kind, "tenant_id": dispute.tenant_id}
    if taken_nanos > 0:
        pay_back(amount_nanos=taken_nanos, is_forced=True, reason="for the test", **money)
    else:
        pay_in(amount_nanos=-taken_nanos, reason="for the test", **money)
    DisputeMovement.objects.create(
        balance_transaction_id=line_id,
        tenant_id=dispute.tenant_id,
        currency=dispute.currency,
        dispute=dispute,
        taken_nanos=taken_nanos,
        tax_nanos=0,
        transfer_id=moved_id,
    )


def make_event(
    *,
    type: str = "checkout.session.completed",
    object_id: str | None = None,
    state: EventState = EventState.PROCESSED,
    source: EventSource = EventSource.WEBHOOK,
    error: str = "",
    at: datetime | None = None,
    **payload: Any,
) -> str:
    """An event in the inbox; its id. payload: further members of the object that it is about."""
    at, event_id = at or utc_now(), stripe_id("evt")
    object_id = object_id or stripe_id("cs")
    is_done = state in (EventState.PROCESSED, EventState.IGNORED)
    with role_scope("operator"):
        StripeEvent.objects.create(
            id=event_id,
            type=type,
            object_id=object_id,
            payload={
                "id": event_id,
                "object": "event",
                "type": type,
                "created": int(at.timestamp()),
                "livemode": False,
                "data": {"object": {"id": object_id, **payload}},
            },
            source=source,
            created_at=at,
            received_at=at,
            state=state,
            attempts=0 if state == EventState.RECEIVED else 1,
            # What a test puts there waits for nobody: no sweeper takes it before the test looks.
            next_attempt_at=at + DAY,
            error=error or ("nothing of this id" if state == EventState.FAILED else ""),
            processed_at=at if is_done else None,
        )
    return event_id


def make_operation(
    tenant: TenantFixture,
    *,
    kind: OperationKind = OperationKind.CHECKOUT,
    subject_id: UUID | None = None,
    state: OperationState = OperationState.DONE,
    parameters: Mapping[str, Any] | None = None,
    object_id: str | None = None,
    error_text: str = "",
    at: datetime | None = None,
) -> UUID:
    """A request to Stripe in this state."""
    at = at or utc_now()
    is_open = state == OperationState.PENDING
    with role_scope("operator"):
        return StripeOperation.objects.create(
            tenant_id=tenant.id,
            kind=kind,
            subject_id=subject_id,
            parameters=dict(parameters or {}),
            state=state,
            object_id=object_id or (stripe_id("cs") if state == OperationState.DONE else ""),
            error_text=error_text or ("Refused." if state == OperationState.REFUSED else ""),
            attempts=1,
            created_at=at,
            sent_at=at,
            finished_at=None if is_open else at,
        ).id


def make_balance_transaction(
    *,
    type: str = "charge",
    currency: str = "USD",
    amount: str = "20.00",
    fee: str = "0",
    source_id: str = "",
    at: datetime | None = None,
) -> str:
    """A line of Stripe's books with its fee posted; its id. Amounts are decimal text, also with a minus.

    The audit wants both sides of what is older than a day: source_id is then the charge of a paid top-up, or
    the refund that it is of.
    """
    at, line_id = at or utc_now(), stripe_id("txn")
    fee_nanos = parse_amount(fee)
    fee_id = transfer_id(TransferKind.PAYMENT_FEE, f"stripe:{line_id}") if fee_nanos else None
    with role_scope("operator"), transaction.atomic(using="operator"):
        if fee_id is not None:
            move_house(
                transfer_id=fee_id,
                kind=TransferKind.PAYMENT_FEE,
                currency=currency,
                source=AccountKind.PAYMENT_FEES,
                target=AccountKind.STRIPE_CLEARING,
                amount_nanos=fee_nanos,
                reason="for the test",
            )
        BalanceTransaction.objects.create(
            id=line_id,
            type=type,
            reporting_category=type,
            currency=currency,
            amount_nanos=parse_amount(amount),
            fee_nanos=fee_nanos,
            source_id=source_id or stripe_id("ch"),
            created_at=at,
            available_at=at + 2 * DAY,
            fee_transfer_id=fee_id,
        )
    return line_id


def make_recharge(tenant: TenantFixture, *, state: RechargeState = RechargeState.ON, **fields: Any) -> None:
    """The organization buys 20.00 whenever it has less than 5.00. Other fields are those of AutoRecharge."""
    values: dict[str, Any] = {
        "state": state,
        "threshold_nanos": parse_amount("5"),
        "amount_nanos": parse_amount("20"),
        "monthly_cap_nanos": parse_amount("100"),
        "payment_method_id": stripe_id("pm"),
        "method": "visa \N{MIDDLE DOT}\N{MIDDLE DOT} 4242",
    }
    with role_scope("operator"):
        AutoRecharge.objects.update_or_create(tenant_id=tenant.id, defaults=values | fields)


def set_cursor(name: str, *, polled_at: datetime, error: str = "") -> None:
    """A poller of this name has last asked then."""
    with role_scope("operator"):
        PollCursor.objects.update_or_create(
            name=name, defaults={"read_to": polled_at, "polled_at": polled_at, "error": error}
        )


def make_every_payment(tenant: TenantFixture) -> dict[str, UUID]:
    """A row in each table of payments that an organization owns; by the kinds of portal.kit.ids."""
    make_customer(tenant)
    make_recharge(tenant)
    top_up_id = make_top_up(tenant)
    refund_id = make_refund(top_up_id)
    with role_scope("operator"):
        top_up = TopUp.objects.get(id=top_up_id)
        refunded_id = Refund.objects.values_list("refund_id", flat=True).get(id=refund_id)
    operation_id = make_operation(
        tenant, kind=OperationKind.REFUND, subject_id=refund_id, object_id=refunded_id
    )
    make_operation(tenant, subject_id=top_up_id, object_id=top_up.session_id)
    return {
        "top_up": top_up_id,
        "refund": refund_id,
        "dispute": make_dispute(top_up_id, amount="1.00"),
        "stripe_operation": operation_id,
    }
