"""What became of a recharge: paid, on its way, refused, or the bank wants to see the customer.

The same outcome may be told many times and by several at once: by the answer to the request, by events, by
the poller. Each is applied under the lock of the organization's auto-recharge, and only what is still open
changes; a payment that came in is credited whatever was thought of it before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from portal.kit.money import from_minor_units
from quotas.models import (
    OPEN_TOP_UP_STATES,
    AccountKind,
    AutoRecharge,
    OperationKind,
    OperationState,
    RechargeState,
    StripeOperation,
    TopUp,
    TopUpState,
)
from quotas.payments import fulfilment, mismatch, sending
from quotas.payments.customers import find_customer
from quotas.payments.recharge import mails
from quotas.payments.recharge.intents import commit_cancellation
from quotas.payments.recharge.rows import (
    MAX_DECLINES,
    RechargeReason,
    described,
    locked_recharge,
    retry_delay,
    store,
)
from quotas.payments.sending import Sent
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

AUTHENTICATION: Final = "authentication_required"


class UnexpectedIntent(RuntimeError):
    """A payment at Stripe is not what was asked for; nothing is credited, and an operator has to look."""


def apply_recharge_intent(*, top_up_id: UUID, intent: Mapping[str, Any], now: datetime) -> TopUpState:
    """Bring a recharge to what its PaymentIntent, just read from Stripe, says; the state it has then.

    Opens a scope and a transaction of its own. Errors: UnexpectedIntent, TopUp.DoesNotExist.
    """
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        recharge, top_up = _locked(top_up_id)
        _check(top_up, intent)
        if top_up.payment_intent_id is None:
            top_up.payment_intent_id = intent["id"]
            top_up.save(update_fields=["payment_intent_id"])
        if intent["status"] == "succeeded":
            _credit(recharge, top_up, intent, now)
        elif top_up.state in OPEN_TOP_UP_STATES:
            _follow(recharge, top_up, intent, now)
        return TopUpState(TopUp.objects.values_list("state", flat=True).get(id=top_up_id))


def _locked(top_up_id: UUID) -> tuple[AutoRecharge, TopUp]:
    tenant_id = TopUp.objects.values_list("tenant_id", flat=True).get(id=top_up_id)
    recharge = locked_recharge(tenant_id)
    return recharge, TopUp.objects.select_for_update(no_key=True).get(id=top_up_id)


def _check(top_up: TopUp, intent: Mapping[str, Any]) -> None:
    """Where the payment is not what was asked for, the recharge stays open, so that no other one begins."""
    customer_id = find_customer(tenant_id=top_up.tenant_id)
    wrong = mismatch.of_intent(top_up, dict(intent), customer_id)
    if wrong:
        logger.error("quotas.payments.mismatch", extra={"top_up": str(top_up), "field": wrong})
        raise UnexpectedIntent(f"the payment of {top_up} is not what was asked for: {wrong}")


def _credit(recharge: AutoRecharge, top_up: TopUp, intent: Mapping[str, Any], now: datetime) -> None:
    charge = intent.get("latest_charge") or {}
    paid = fulfilment.PaidFacts(
        gross_nanos=from_minor_units(intent["amount_received"], top_up.currency),
        tax_nanos=top_up.tax_nanos or 0,
        charge_id=charge.get("id") or "",
        method=fulfilment.describe_method(charge.get("payment_method_details") or {}),
        receipt_url=charge.get("receipt_url") or "",
        payment_intent_id=intent["id"],
    )
    if not fulfilment.credit_top_up(
        top_up_id=top_up.id, paid=paid, source_account=AccountKind.STRIPE_CLEARING, now=now
    ):
        return
    before = described(recharge)
    recharge.declines, recharge.retry_at = 0, None
    if recharge.state == RechargeState.PAUSED and top_up.state == TopUpState.ACTION_NEEDED:
        recharge.state, recharge.state_reason = RechargeState.ON, ""
    store(recharge, action="recharge.resume", actor=audit.SYSTEM, before=before, now=now)


def _follow(recharge: AutoRecharge, top_up: TopUp, intent: Mapping[str, Any], now: datetime) -> None:
    status, error = intent["status"], intent.get("last_payment_error") or {}
    if status == "processing":
        TopUp.objects.filter(id=top_up.id).update(state=TopUpState.PROCESSING)
    elif status == "canceled":
        _end_unpaid(recharge, top_up, top_up.failure_code or "canceled", now)
    elif status == "requires_action":
        _refuse(recharge, top_up, AUTHENTICATION, now)
    elif status == "requires_payment_method" and error:
        _refuse(recharge, top_up, str(error.get("decline_code") or error.get("code") or "declined"), now)


def _refuse(recharge: AutoRecharge, top_up: TopUp, code: str, now: datetime) -> None:
    """Nothing was paid: the bank wants to see the customer, or said no."""
    if code == AUTHENTICATION:
        _pause(recharge, top_up, now)
    else:
        _decline(recharge, top_up, code, now)


def _pause(recharge: AutoRecharge, top_up: TopUp, now: datetime) -> None:
    if top_up.state == TopUpState.ACTION_NEEDED:
        return
    top_up.state, top_up.failure_code = TopUpState.ACTION_NEEDED, AUTHENTICATION
    top_up.save(update_fields=["state", "failure_code"])
    if recharge.state == RechargeState.OFF:
        # Turned off meanwhile: nobody will confirm it.
        if commit_cancellation(top_up=top_up, now=now) is None:
            _end_unpaid(recharge, top_up, AUTHENTICATION, now)
        return
    before = described(recharge)
    recharge.state, recharge.state_reason = RechargeState.PAUSED, RechargeReason.AUTHENTICATION
    store(recharge, action="recharge.pause", actor=audit.SYSTEM, before=before, now=now)
    mails.mail_paused(recharge=recharge, top_up=top_up, now=now)


def _decline(recharge: AutoRecharge, top_up: TopUp, code: str, now: datetime) -> None:
    _end(top_up, code, now)
    # What was declined could be paid later all the same, and would then stand beside the next attempt.
    commit_cancellation(top_up=top_up, now=now)
    before = described(recharge)
    recharge.declines += 1
    recharge.retry_at = now + retry_delay(recharge.declines)
    if recharge.state == RechargeState.OFF:
        store(recharge, action="recharge.decline", actor=audit.SYSTEM, before=before, now=now)
    elif recharge.declines >= MAX_DECLINES:
        switch_off(recharge, RechargeReason.DECLINED, now, before=before)
    else:
        store(recharge, action="recharge.decline", actor=audit.SYSTEM, before=before, now=now)
        mails.mail_declined(recharge=recharge, top_up=top_up, now=now)


def switch_off(
    recharge: AutoRecharge, reason: RechargeReason, now: datetime, *, before: dict[str, Any] | None = None
) -> None:
    """By itself, with notice, in the transaction that holds the row's lock."""
    before = before if before is not None else described(recharge)
    recharge.state, recharge.state_reason, recharge.retry_at = RechargeState.OFF, reason, None
    store(recharge, action="recharge.switch_off", actor=audit.SYSTEM, before=before, now=now)
    mails.mail_switched_off(recharge=recharge, now=now)


def _end_unpaid(recharge: AutoRecharge, top_up: TopUp, code: str, now: datetime) -> None:
    """It ended, and nobody declined it: cancelled, or never sent. The next attempt waits all the same."""
    _end(top_up, code, now)
    AutoRecharge.objects.filter(tenant_id=recharge.tenant_id).update(retry_at=now + retry_delay(1))


def _end(top_up: TopUp, code: str, now: datetime) -> None:
    top_up.state, top_up.failure_code, top_up.ended_at = TopUpState.FAILED, code[:100], now
    top_up.save(update_fields=["state", "failure_code", "ended_at"])


def _finish_payment(*, operation: StripeOperation, sent: Sent, now: datetime) -> None:
    """Stripe has the payment, or refused it. Money is believed in once the payment is read again."""
    assert operation.subject_id is not None
    recharge, top_up = _locked(operation.subject_id)
    if sent.object_id and top_up.payment_intent_id is None:
        top_up.payment_intent_id = sent.object_id
        top_up.save(update_fields=["payment_intent_id"])
    if top_up.state not in OPEN_TOP_UP_STATES:
        return
    if sent.state == OperationState.REFUSED:
        _refuse(recharge, top_up, sent.error_code or "refused", now)
    elif sent.state == OperationState.ABANDONED:
        _end_unpaid(recharge, top_up, "abandoned", now)


def _finish_cancellation(*, operation: StripeOperation, sent: Sent, now: datetime) -> None:
    assert operation.subject_id is not None
    _recharge, top_up = _locked(operation.subject_id)
    if sent.state == OperationState.DONE and top_up.state in OPEN_TOP_UP_STATES:
        _end(top_up, top_up.failure_code or "canceled", now)


sending.FINISHERS[OperationKind.RECHARGE] = _finish_payment
sending.FINISHERS[OperationKind.CANCEL_INTENT] = _finish_cancellation
