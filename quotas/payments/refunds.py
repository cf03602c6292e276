"""Refunds: debited first, then asked of Stripe, and credited again when they fail.

Those that were made in Stripe's dashboard are debited when we hear of them, whatever is left of the credit.
Each is known by Stripe's id of the refund, never by an event. Locks, in this order: the operator's orders,
the top-up, the refund, the wallet.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import transaction

from portal.kit.ids import PREFIXES, public_id, transfer_id, uuid7
from portal.kit.money import InvalidAmount, from_minor_units, to_minor_units
from quotas.ledger import payments as ledger
from quotas.models import (
    OperationKind,
    OperationState,
    Refund,
    RefundState,
    StripeOperation,
    TopUp,
    TransferKind,
    Wallet,
)
from quotas.payments import giving_back, sending
from quotas.payments.charges import paid_top_up, read_or_none
from quotas.payments.client import stripe_client, stripe_config
from quotas.payments.customers import created_around, first_of
from quotas.payments.moneyback_queries import Obstacle, Refundable, refund_shares, refundable_of
from quotas.payments.receivables import review_receivable
from quotas.payments.sending import Sent
from quotas.payments.tax_shares import tax_within_refund
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

MAX_REFUNDS_OF_CHARGE: Final = 1_000
FAILED_STATUSES: Final = ("failed", "canceled")
MADE_AT_STRIPE: Final = "Made at Stripe"
_PAID_BY: Final = ("charge", "payment_intent")


class TopUpNotFound(LookupError):
    """There is no such top-up."""


class InvalidRefund(ValueError):
    """The amount is not positive, or no whole number of the currency's coins."""


class NotRefundable(ValueError):
    """More than can be refunded: `refundable` says how much can, and why nothing."""

    def __init__(self, refundable: Refundable) -> None:
        super().__init__(f"at most {refundable.amount_nanos} nano-units can be refunded")
        self.refundable = refundable

    @property
    def obstacle(self) -> Obstacle | None:
        return self.refundable.obstacle


@dataclass(frozen=True, slots=True)
class Ordered:
    """A refund and how far it is. It stays PENDING while Stripe has not answered, or takes its time."""

    refund_id: UUID
    state: RefundState
    failure_code: str = ""


def order_refund(
    *, top_up_id: UUID, amount_nanos: int | None, reason: str, actor: audit.Actor, now: datetime
) -> Ordered:
    """Refund credit of a top-up to whoever paid for it. It is debited and committed, then Stripe is asked.

    amount_nanos: the credit, in whole coins; its share of tax goes back beside it. None: all that can be.
    Outside every transaction; opens scopes of its own. Errors: ReasonMissing (of tenants.operations.audit),
    TopUpNotFound, InvalidRefund, NotRefundable, AboveLimit (of quotas.payments.giving_back),
    quotas.payments.sending.TransactionOpen, quotas.payments.client.PaymentsNotConfigured.
    """
    sending.require_no_transaction()
    stripe_config()
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        giving_back.lock_orders_of(operator_id)
        top_up = TopUp.objects.select_for_update(no_key=True).filter(id=top_up_id).first()
        if top_up is None:
            raise TopUpNotFound("there is no such top-up")
        wallet = Wallet.objects.select_for_update(no_key=True).get(tenant_id=top_up.tenant_id)
        possible = refundable_of(top_up, wallet)
        credit_nanos = _checked_amount(amount_nanos, possible)
        tax_nanos = possible.tax_of(credit_nanos)
        giving_back.check_limit(operator_id, credit_nanos + tax_nanos, now)
        refund = _debit(
            top_up,
            credit_nanos=credit_nanos,
            tax_nanos=tax_nanos,
            is_forced=False,
            reason=reason,
            ordered_by=operator_id,
            now=now,
        )
        operation_id = sending.commit_operation(
            tenant_id=top_up.tenant_id,
            kind=OperationKind.REFUND,
            subject_id=refund.id,
            parameters=_parameters(top_up, refund),
            now=now,
        )
        _record(actor, "refund.order", refund, reason)
    sending.send(operation_id=operation_id, now=now)
    with role_scope("operator"):
        refund.refresh_from_db()
    if refund.state == RefundState.FAILED:
        review_receivable(tenant_id=refund.tenant_id, now=now)
    return Ordered(refund.id, RefundState(refund.state), refund.failure_code)


def apply_refund(*, refund_id: str, now: datetime) -> bool:
    """Bring our refund to the state that Stripe's refund has; make it where it was made at Stripe. False when
    it is of a charge that is none of ours. Opens scopes of its own.

    refund_id: Stripe's. Errors: quotas.payments.sending.TransactionOpen, stripe.StripeError,
    quotas.payments.charges.NotCreditedYet; django.db.IntegrityError, constraint `refund_within_top_up`, while
    one of ours that Stripe will refuse is still on its way: that is tried again.
    """
    sending.require_no_transaction()
    found = read_or_none(lambda: stripe_client().v1.refunds.retrieve(refund_id, {"expand": ["charge"]}))
    return found is not None and _apply(found, found.get("charge"), now)


def apply_charge_refunds(*, charge_id: str, now: datetime) -> bool:
    """The same for every refund of a charge."""
    sending.require_no_transaction()
    client = stripe_client()
    charge = read_or_none(lambda: client.v1.charges.retrieve(charge_id))
    if charge is None:
        return False
    listed = client.v1.refunds.list({"charge": charge_id, "limit": 100})
    is_ours = False
    for count, refund in enumerate(listed.auto_paging_iter()):
        if count >= MAX_REFUNDS_OF_CHARGE:
            break
        is_ours = _apply(refund.to_dict(), charge, now) or is_ours
    return is_ours


def _apply(found: dict[str, Any], charge: Any, now: datetime) -> bool:
    with role_scope("operator"):
        known = _known(found)
    if known is not None and _carry_known(known.id, found, now):
        review_receivable(tenant_id=known.tenant_id, now=now)
        return True
    if not isinstance(charge, dict):
        return False
    top_up = paid_top_up(charge=charge, now=now)
    if top_up is None:
        return False
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        _make(top_up.id, found, now)
    review_receivable(tenant_id=top_up.tenant_id, now=now)
    return True


def _carry_known(refund_id: UUID, found: dict[str, Any], now: datetime) -> bool:
    """False when it was given up and credited again before it could be locked: see _known."""
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        refund = _locked(refund_id)
        if _is_given_up(refund):
            return False
        _carry(refund, found, now)
    return True


def _is_given_up(refund: Refund) -> bool:
    return refund.state == RefundState.FAILED and refund.refund_id is None


def _known(found: dict[str, Any]) -> Refund | None:
    """Our row: of Stripe's id, or of the operation that asked for it and may not know its answer yet."""
    known = Refund.objects.filter(refund_id=found["id"]).first()
    if known is not None:
        return known
    operation_id = _uuid((found.get("metadata") or {}).get("operation"))
    if operation_id is None:
        return None
    asked = StripeOperation.objects.filter(id=operation_id, kind=OperationKind.REFUND).first()
    if asked is None or asked.subject_id is None or asked.parameters.get("amount") != found["amount"]:
        return None
    # One that we gave up on and credited again is a refund that was made at Stripe.
    open_ = Refund.objects.filter(id=asked.subject_id, refund_id=None).exclude(state=RefundState.FAILED)
    return open_.first()


def _make(top_up_id: UUID, found: dict[str, Any], now: datetime) -> None:
    """A refund of which we have no row: what is left of paid credit is taken, the rest is owed."""
    top_up = TopUp.objects.select_for_update(no_key=True).get(id=top_up_id)
    known = _known(found)
    locked = _locked(known.id) if known is not None else None
    if locked is not None and not _is_given_up(locked):
        _carry(locked, found, now)
        return
    if found["currency"].upper() != top_up.currency:
        raise ValueError(f"refund {found['id']} is not in the currency of its top-up")
    gross_nanos = from_minor_units(found["amount"], top_up.currency)
    tax_nanos = tax_within_refund(
        shares=refund_shares(top_up),
        gross_nanos=gross_nanos,
        step_nanos=from_minor_units(1, top_up.currency),
    )
    refund = _debit(
        top_up,
        credit_nanos=gross_nanos - tax_nanos,
        tax_nanos=tax_nanos,
        is_forced=True,
        reason=MADE_AT_STRIPE,
        ordered_by=None,
        now=now,
    )
    _record(audit.SYSTEM, "refund.found", refund, MADE_AT_STRIPE)
    _carry(refund, found, now)


def _debit(
    top_up: TopUp,
    *,
    credit_nanos: int,
    tax_nanos: int,
    is_forced: bool,
    reason: str,
    ordered_by: UUID | None,
    now: datetime,
) -> Refund:
    refund_id = uuid7()
    posted_id = transfer_id(TransferKind.REFUND, f"refund:{refund_id}")
    ledger.pay_back(
        transfer_id=posted_id,
        kind=TransferKind.REFUND,
        tenant_id=top_up.tenant_id,
        amount_nanos=credit_nanos,
        tax_nanos=tax_nanos,
        is_forced=is_forced,
        reason=f"Refund of {top_up} ({public_id(PREFIXES['refund'], refund_id)})",
    )
    return Refund.objects.create(
        id=refund_id,
        tenant_id=top_up.tenant_id,
        currency=top_up.currency,
        top_up=top_up,
        amount_nanos=credit_nanos,
        tax_nanos=tax_nanos,
        gross_nanos=credit_nanos + tax_nanos,
        reason=reason,
        ordered_by_id=ordered_by,
        ordered_at=now,
        transfer_id=posted_id,
    )


def _carry(refund: Refund, found: dict[str, Any], now: datetime) -> None:
    """The state that Stripe's refund has becomes that of ours, which the caller has locked."""
    refund.refund_id = refund.refund_id or found["id"]
    status = found.get("status")
    if status in FAILED_STATUSES:
        _fail(refund, str(found.get("failure_reason") or status), now)
        return
    if status == "succeeded" and refund.state == RefundState.PENDING:
        refund.state, refund.ended_at = RefundState.SUCCEEDED, now
    elif refund.state == RefundState.FAILED:
        logger.error("quotas.payments.refund_after_failure", extra={"refund": str(refund)})
    refund.save(update_fields=["refund_id", "state", "ended_at"])


def _fail(refund: Refund, code: str, now: datetime) -> None:
    """Its money is the organization's again, once."""
    if refund.state != RefundState.FAILED:
        reversal_id = transfer_id(TransferKind.REFUND_REVERSED, f"refund:{refund.id}")
        ledger.pay_in(
            transfer_id=reversal_id,
            kind=TransferKind.REFUND_REVERSED,
            tenant_id=refund.tenant_id,
            amount_nanos=refund.amount_nanos,
            tax_nanos=refund.tax_nanos,
            reason=f"Refund that did not arrive ({refund})",
        )
        refund.state, refund.ended_at, refund.reversal_id = RefundState.FAILED, now, reversal_id
        refund.failure_code = code[:100]
    refund.save(update_fields=["refund_id", "state", "ended_at", "reversal_id", "failure_code"])


def _locked(refund_id: UUID) -> Refund:
    return Refund.objects.select_for_update(no_key=True).get(id=refund_id)


def _checked_amount(amount_nanos: int | None, possible: Refundable) -> int:
    if amount_nanos is None:
        amount_nanos = possible.amount_nanos
    elif amount_nanos <= 0:
        raise InvalidRefund("a refund is of more than nothing")
    try:
        to_minor_units(amount_nanos, possible.currency)
    except InvalidAmount as error:
        raise InvalidRefund("a refund is of whole coins") from error
    if possible.obstacle is not None or amount_nanos > possible.amount_nanos:
        raise NotRefundable(possible)
    return amount_nanos


def _parameters(top_up: TopUp, refund: Refund) -> dict[str, Any]:
    paid = {"charge": top_up.charge_id} if top_up.charge_id else {"payment_intent": top_up.payment_intent_id}
    return {
        **paid,
        "amount": to_minor_units(refund.gross_nanos, refund.currency),
        "reason": "requested_by_customer",
        "metadata": {"top_up": str(top_up), "refund": str(refund)},
    }


def _record(actor: audit.Actor, action: str, refund: Refund, reason: str) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=refund.tenant_id,
        target=str(refund),
        after={
            "top_up": public_id(PREFIXES["top_up"], refund.top_up_id),
            "amount_nanos": refund.amount_nanos,
            "tax_nanos": refund.tax_nanos,
            "currency": refund.currency,
        },
        reason=reason,
        is_internal=True,
    )


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(str(text))
    except ValueError:
        return None


def _create(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.refunds.create(operation.parameters, options)


def _finish(*, operation: StripeOperation, sent: Sent, now: datetime) -> None:
    """In the transaction that ends the operation."""
    assert operation.subject_id is not None
    refund = _locked(operation.subject_id)
    if refund.refund_id is not None:
        # An event came first. It told what Stripe has now; the answer may be the one it gave long ago.
        return
    if sent.state == OperationState.DONE:
        _carry(refund, sent.data or {"id": sent.object_id}, now)
    else:
        _fail(refund, sent.error_code, now)


def _look_up(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    wanted: Any = {"created": created_around(operation), "limit": 100}
    wanted |= {name: operation.parameters[name] for name in _PAID_BY if name in operation.parameters}
    return first_of(client.v1.refunds.list(wanted), operation)


sending.CALLS[OperationKind.REFUND] = _create
sending.FINISHERS[OperationKind.REFUND] = _finish
sending.LOOKUPS[OperationKind.REFUND] = _look_up
