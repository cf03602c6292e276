"""What an organization wants of auto-recharge: setting it, and turning it off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

from django.db import transaction

from portal.kit.money import from_minor_units
from quotas.models import MAX_ORDER_NANOS, AutoRecharge, RechargeState, Wallet
from quotas.payments.policy import PaymentPolicy, payment_policy
from quotas.payments.recharge.intents import cancel_waiting
from quotas.payments.recharge.rows import described, locked_recharge, store, turn_on
from tenants.operations import audit
from tenants.scope import scope_alias


class Problem(StrEnum):
    """Why an amount cannot be."""

    NOT_WHOLE = "NOT_WHOLE"  # not a whole number of cents
    TOO_LOW = "TOO_LOW"
    TOO_HIGH = "TOO_HIGH"
    NOT_OFFERED = "NOT_OFFERED"  # not one of the operator's list


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """bound_nanos: the lowest or highest that can be, where that is the problem."""

    problem: Problem
    bound_nanos: int = 0


class InvalidRecharge(ValueError):
    """Amounts that cannot be set. problems: by the name of the argument."""

    def __init__(self, problems: Mapping[str, FieldProblem]) -> None:
        super().__init__(", ".join(f"{name}: {one.problem.lower()}" for name, one in problems.items()))
        self.problems = MappingProxyType(dict(problems))


def set_recharge(
    *,
    tenant_id: UUID,
    threshold_nanos: int,
    amount_nanos: int,
    monthly_cap_nanos: int,
    actor: audit.Actor,
    now: datetime,
) -> RechargeState:
    """Turn it on with these amounts (nano-units of the wallet's currency), or change them; its state then.

    Without a saved method it stays off, and turns on when one is saved. One that is paused stays so: the bank
    still wants to see the customer. Errors: InvalidRecharge.
    """
    currency = Wallet.objects.values_list("currency", flat=True).get(tenant_id=tenant_id)
    _check(threshold_nanos, amount_nanos, monthly_cap_nanos, currency, payment_policy())
    with transaction.atomic(using=scope_alias()):
        recharge = locked_recharge(tenant_id)
        before = described(recharge)
        recharge.threshold_nanos = threshold_nanos
        recharge.amount_nanos = amount_nanos
        recharge.monthly_cap_nanos = monthly_cap_nanos
        if recharge.state == RechargeState.OFF:
            turn_on(recharge)
        store(recharge, action="recharge.set", actor=actor, before=before, now=now)
    return RechargeState(recharge.state)


def turn_off(*, tenant_id: UUID, actor: audit.Actor, now: datetime) -> bool:
    """No recharge begins any more; whether one could have. The amounts and the method are kept. A payment
    under way ends as it will; one that waits for the customer is cancelled."""
    with transaction.atomic(using=scope_alias()):
        recharge = AutoRecharge.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()
        if recharge is None or (recharge.state == RechargeState.OFF and not recharge.state_reason):
            return False
        before = described(recharge)
        recharge.state, recharge.state_reason = RechargeState.OFF, ""
        store(recharge, action="recharge.turn_off", actor=actor, before=before, now=now)
        cancel_waiting(tenant_id=tenant_id, now=now)
    return True


def _check(
    threshold_nanos: int, amount_nanos: int, monthly_cap_nanos: int, currency: str, policy: PaymentPolicy
) -> None:
    unit_nanos = from_minor_units(1, currency)
    offered = policy.amounts(currency)
    lowest_nanos, highest_nanos = policy.lowest_nanos, policy.highest_nanos
    if offered:
        lowest_nanos = min(*offered, *([lowest_nanos] if policy.is_free else offered))
        highest_nanos = max(*offered, *([highest_nanos] if policy.is_free else offered))
    bounds = {
        # One above the amount would start several recharges in a row.
        "threshold_nanos": (threshold_nanos, unit_nanos, max(amount_nanos, unit_nanos)),
        "amount_nanos": (amount_nanos, lowest_nanos, highest_nanos),
        "monthly_cap_nanos": (monthly_cap_nanos, amount_nanos, MAX_ORDER_NANOS),
    }
    problems: dict[str, FieldProblem] = {}
    for name, (value, lowest, highest) in bounds.items():
        if value % unit_nanos:
            problems[name] = FieldProblem(Problem.NOT_WHOLE)
        elif value < lowest:
            problems[name] = FieldProblem(Problem.TOO_LOW, lowest)
        elif value > highest:
            problems[name] = FieldProblem(Problem.TOO_HIGH, highest)
    if "amount_nanos" not in problems and not policy.offers(amount_nanos, currency):
        problems["amount_nanos"] = FieldProblem(Problem.NOT_OFFERED)
    if problems:
        raise InvalidRecharge(problems)
