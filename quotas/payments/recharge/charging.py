"""Starting recharges: the row of a payment is committed before Stripe is asked, one an organization."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction

from quotas.models import (
    AutoRecharge,
    OperationKind,
    OperationState,
    RechargeState,
    StripeOperation,
    TopUp,
    TopUpSource,
    TopUpState,
)
from quotas.payments import checkout, fulfilment, sending
from quotas.payments.client import takes_cards
from quotas.payments.customers import find_customer
from quotas.payments.policy import payment_policy
from quotas.payments.recharge.intents import cancel_waiting, commit_payment
from quotas.payments.recharge.outcomes import switch_off
from quotas.payments.recharge.queries import due_tenants
from quotas.payments.recharge.rows import RechargeReason, locked_recharge, retry_delay
from quotas.payments.recharge.taxes import NoTaxAddress, RechargeTax, TaxRefused, calculate_tax
from quotas.payments.sending import Sent
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

# What a run does at most; the next run, which may be beside it, finds the rest.
RUN_LIMIT: Final = 200
RUN_BUDGET_S: Final = 60.0


class NothingToConfirm(LookupError):
    """The organization's auto-recharge is not paused: it was confirmed, paid or turned off meanwhile."""


@dataclass(frozen=True, slots=True)
class StartReport:
    """started: how many recharges; paid: how many of them brought their credit at once."""

    started: int
    paid: int


def start_due_recharges(*, now: datetime, limit: int = RUN_LIMIT) -> StartReport:
    """Start a recharge for every organization that needs one, the lowest balance first, and see it through.

    Any number of these may run at once. Without a key of Stripe none is started; when Stripe gives no answer,
    no further one is. Opens scopes of its own. Errors: quotas.payments.sending.TransactionOpen.
    """
    if not takes_cards():
        return StartReport(0, 0)
    sending.require_no_transaction()
    with role_scope("operator"):
        found = due_tenants(now=now, limit=limit)
    started = paid = 0
    deadline_s = time.monotonic() + RUN_BUDGET_S
    for tenant_id in found:
        try:
            operation_id = commit_recharge(tenant_id=tenant_id, tax=_tax_of(tenant_id, now), now=now)
            if operation_id is None:
                continue
            started += 1
            state, is_lost = _see_through(operation_id, now)
        except sending.StripeUnavailable:
            logger.warning("quotas.payments.recharge_put_off", extra={"tenant_id": str(tenant_id)})
            break
        except Exception:
            # One organization's trouble is not the others'; what was committed, the sweeper goes on with.
            logger.exception("quotas.payments.recharge_failed", extra={"tenant_id": str(tenant_id)})
            continue
        paid += state == TopUpState.PAID
        if is_lost or time.monotonic() > deadline_s:
            break
    return StartReport(started, paid)


def commit_recharge(*, tenant_id: UUID, tax: RechargeTax | None = None, now: datetime) -> UUID | None:
    """Make the top-up of a recharge and its request to Stripe, which is to be sent; the request's id.

    tax: on top of it, where the installation takes tax. None when it need not be, or somebody else is at it.
    Balance, cap and what is open are checked again under the lock of the organization's auto-recharge. Opens
    a scope of its own.
    """
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        locked = AutoRecharge.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
        recharge = locked.select_related("tenant").filter(tenant_id=tenant_id).first()
        if recharge is None or not due_tenants(now=now, limit=1, tenant_id=tenant_id):
            return None
        is_taxed = tax is not None and tax.amount_nanos == recharge.amount_nanos
        if payment_policy().takes_tax and not is_taxed:
            return None
        customer_id = find_customer(tenant_id=tenant_id)
        if customer_id is None:
            logger.error("quotas.payments.recharge_without_customer", extra={"tenant_id": str(tenant_id)})
            return None
        top_up = TopUp.objects.create(
            tenant_id=tenant_id,
            currency=recharge.tenant.currency,
            source=TopUpSource.RECHARGE,
            amount_nanos=recharge.amount_nanos,
            tax_nanos=tax.tax_nanos if tax is not None else None,
            method=recharge.method,
            created_at=now,
        )
        return commit_payment(top_up=top_up, recharge=recharge, customer_id=customer_id, tax=tax, now=now)


def follow_recharge(*, top_up_id: UUID, now: datetime) -> TopUpState:
    """Read an open recharge at Stripe again, and send what was written down to cancel it; the state it has
    then. Opens scopes of its own. Errors: those of quotas.payments.fulfilment.apply_intent."""
    state = fulfilment.apply_top_up(top_up_id=top_up_id, now=now)
    send_cancellation(top_up_id=top_up_id, now=now)
    if state is None:
        raise fulfilment.TopUpNotFound("there is no such top-up")
    return state


def send_cancellation(*, top_up_id: UUID, now: datetime) -> Sent | None:
    """Send the pending request that cancels this recharge's payment; None when there is none. Its sender may
    be gone before; then the sweeper sends it. Opens scopes of its own."""
    with role_scope("operator"):
        pending = StripeOperation.objects.filter(
            kind=OperationKind.CANCEL_INTENT, subject_id=top_up_id, state=OperationState.PENDING
        )
        operation_id = pending.values_list("id", flat=True).first()
    return sending.send(operation_id=operation_id, now=now) if operation_id is not None else None


def confirm_on_session(
    *, tenant_id: UUID, user_id: UUID | None, success_url: str, cancel_url: str, now: datetime
) -> checkout.StartedTopUp:
    """Open a page of Stripe on which the customer pays what the bank did not let pass without the customer.

    The payment that waits is cancelled first, for certain: both can never be paid. What is paid on the page
    resumes auto-recharge. Addresses as in start_top_up. Opens scopes of its own. Errors: NothingToConfirm,
    quotas.payments.sending.StripeUnavailable, and those of quotas.payments.checkout.start_top_up.
    """
    sending.require_no_transaction()
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        recharge = AutoRecharge.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()
        if recharge is None or recharge.state != RechargeState.PAUSED:
            raise NothingToConfirm("auto-recharge is not paused")
        amount_nanos = recharge.amount_nanos
        waiting = TopUp.objects.filter(
            tenant_id=tenant_id, source=TopUpSource.RECHARGE, state=TopUpState.ACTION_NEEDED
        ).first()
        if waiting is not None:
            amount_nanos = waiting.amount_nanos
            cancel_waiting(tenant_id=tenant_id, now=now)
    if waiting is not None:
        _cancel_for_certain(waiting.id, now)
    return checkout.start_top_up(
        tenant_id=tenant_id,
        user_id=user_id,
        amount_nanos=amount_nanos,
        keeps_method=True,
        success_url=success_url,
        cancel_url=cancel_url,
        now=now,
    )


def _cancel_for_certain(top_up_id: UUID, now: datetime) -> None:
    """Errors: NothingToConfirm when it was paid, StripeUnavailable while it is not known to be cancelled."""
    sent = send_cancellation(top_up_id=top_up_id, now=now)
    state: TopUpState | None = TopUpState.FAILED
    if sent is None or sent.state != OperationState.DONE:
        # Somebody else sent it, or Stripe refused because it waits no more: the payment itself says.
        if sent is not None and sent.state == OperationState.PENDING:
            raise sending.StripeUnavailable(sent.error_text or "Stripe did not answer")
        state = fulfilment.apply_top_up(top_up_id=top_up_id, now=now)
    if state == TopUpState.PAID:
        raise NothingToConfirm("it was paid meanwhile")
    if state != TopUpState.FAILED:
        raise sending.StripeUnavailable("the payment that waits is not cancelled yet")


def _tax_of(tenant_id: UUID, now: datetime) -> RechargeTax | None:
    """None where no tax is taken, or none can be known: without an address of the customer auto-recharge is
    switched off with notice. Errors: StripeUnavailable."""
    if not payment_policy().takes_tax:
        return None
    with role_scope("operator"):
        recharge = AutoRecharge.objects.select_related("tenant").get(tenant_id=tenant_id)
        customer_id = find_customer(tenant_id=tenant_id)
    if customer_id is None:
        return None
    try:
        return calculate_tax(
            customer_id=customer_id, amount_nanos=recharge.amount_nanos, currency=recharge.tenant.currency
        )
    except NoTaxAddress:
        with role_scope("operator"), transaction.atomic(using=scope_alias()):
            switch_off(locked_recharge(tenant_id), RechargeReason.NO_ADDRESS, now)
    except TaxRefused:
        logger.exception("quotas.payments.tax_refused", extra={"tenant_id": str(tenant_id)})
        with role_scope("operator"):
            # Nobody asks every few seconds.
            AutoRecharge.objects.filter(tenant_id=tenant_id).update(retry_at=now + retry_delay(1))
    return None


def _see_through(operation_id: UUID, now: datetime) -> tuple[TopUpState | None, bool]:
    """Send the payment and apply what became of it. The second: whether Stripe gave no answer at all."""
    sent = sending.send(operation_id=operation_id, now=now)
    with role_scope("operator"):
        top_up_id = StripeOperation.objects.values_list("subject_id", flat=True).get(id=operation_id)
    assert top_up_id is not None
    if sent.state == OperationState.PENDING:
        return None, sent.error_code == sending.UNREACHABLE
    return follow_recharge(top_up_id=top_up_id, now=now), False
