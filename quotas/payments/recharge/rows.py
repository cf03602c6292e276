"""The one row of an organization's auto-recharge: locking it, and what every change of it has in common."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import AutoRecharge, RechargeState, Wallet
from quotas.payments.policy import PaymentPolicy, payment_policy
from tenants.operations import audit

MAX_DECLINES: Final = 3
# What is proposed before anybody has set anything: so many times the threshold, and of a recharge a month.
_AMOUNT: Final = 4
_RECHARGES_A_MONTH: Final = 5


class RechargeReason(StrEnum):
    """Why it is off or paused though somebody wanted it on."""

    NO_METHOD = "NO_METHOD"  # it turns on as soon as a method is saved
    AUTHENTICATION = "AUTHENTICATION"  # the bank wants to see the customer
    DECLINED = "DECLINED"  # too often in a row
    METHOD_REMOVED = "METHOD_REMOVED"
    NO_ADDRESS = "NO_ADDRESS"  # where tax is taken: nobody knows which


def locked_recharge(tenant_id: UUID) -> AutoRecharge:
    """The organization's row, made when there is none, locked: whoever starts, ends or changes recharges of
    an organization does it one after another. The lock comes before those of top-ups and of the wallet."""
    found = AutoRecharge.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()
    if found is not None:
        return found
    currency = Wallet.objects.values_list("currency", flat=True).get(tenant_id=tenant_id)
    AutoRecharge.objects.bulk_create([proposed(tenant_id, currency, payment_policy())], ignore_conflicts=True)
    return AutoRecharge.objects.select_for_update(no_key=True).get(tenant_id=tenant_id)


def proposed(tenant_id: UUID, currency: str, policy: PaymentPolicy) -> AutoRecharge:
    """What stands on the page before anybody has set anything: off, not stored."""
    offered = policy.amounts(currency)
    amount_nanos = offered[0] if offered else min(_AMOUNT * policy.lowest_nanos, policy.highest_nanos)
    return AutoRecharge(
        tenant_id=tenant_id,
        state=RechargeState.OFF,
        threshold_nanos=amount_nanos // _AMOUNT // NANOS_PER_UNIT * NANOS_PER_UNIT or amount_nanos,
        amount_nanos=amount_nanos,
        monthly_cap_nanos=_RECHARGES_A_MONTH * amount_nanos,
    )


def turn_on(recharge: AutoRecharge) -> None:
    """As far as its method allows. Declines of before are forgotten: somebody has looked at it."""
    recharge.declines, recharge.retry_at = 0, None
    if recharge.payment_method_id:
        recharge.state, recharge.state_reason = RechargeState.ON, ""
    else:
        recharge.state, recharge.state_reason = RechargeState.OFF, RechargeReason.NO_METHOD


def described(recharge: AutoRecharge) -> dict[str, Any]:
    """Its facts for the audit log."""
    return {
        "state": str(recharge.state),
        "state_reason": str(recharge.state_reason),
        "threshold_nanos": recharge.threshold_nanos,
        "amount_nanos": recharge.amount_nanos,
        "monthly_cap_nanos": recharge.monthly_cap_nanos,
        "method": recharge.method,
    }


def store(
    recharge: AutoRecharge, *, action: str, actor: audit.Actor, before: dict[str, Any], now: datetime
) -> None:
    """Save a change and write it down, in the transaction that holds the lock."""
    recharge.changed_by_id, recharge.changed_at = actor.user_id or recharge.changed_by_id, now
    recharge.save()
    after = described(recharge)
    if after != before:
        audit.record(
            actor=actor,
            action=action,
            tenant_id=recharge.tenant_id,
            target=public_id(PREFIXES["organization"], recharge.tenant_id),
            before=before,
            after=after,
        )


def retry_delay(declines: int) -> timedelta:
    """How long nothing is tried after so many declines in a row, or after another end without a payment."""
    name = "SLUICE_RECHARGE_RETRY_S" if declines <= 1 else "SLUICE_RECHARGE_LAST_RETRY_S"
    return timedelta(seconds=settings.TUNING[name])
