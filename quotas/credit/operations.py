"""Ordering credit, and deciding about what was ordered. All of it as operator.

Locks, in this order: the operator who orders, the order, the wallet. The first makes orders that an operator
gives at once count each other; splitting does not evade the limit.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import connections, transaction

from portal.kit.ids import PREFIXES, public_id, transfer_id
from quotas.credit.policy import CreditPolicy
from quotas.credit.queries import CreditOrderRow, find_order, given_alone
from quotas.ledger import operations as ledger
from quotas.models import (
    GIVING_KINDS,
    MAX_ORDER_NANOS,
    CreditOrder,
    CreditOrderKind,
    CreditOrderState,
    TransferKind,
    Wallet,
)
from tenants.operations import audit
from tenants.scope import scope_alias

LOCK_TIMEOUT_MS = 5_000
# What the organization reads in its statement; why an operator did it stays between operators.
STATEMENT_WORDS = {
    CreditOrderKind.GRANT: "Granted credit",
    CreditOrderKind.GOODWILL: "Goodwill credit",
    CreditOrderKind.TAKE_BACK: "Granted credit taken back",
}


class InvalidOrder(ValueError):
    """The amount is not positive (a credit line: negative) or above MAX_ORDER_NANOS, or the end has passed or
    is one of what does not end."""


class NoWallet(LookupError):
    """There is no such organization."""


class OrderNotFound(LookupError):
    """There is no such order."""


class OrderDecided(ValueError):
    """The order was approved, refused or withdrawn before."""

    def __init__(self, state: CreditOrderState) -> None:
        super().__init__(f"the order is {state.value.lower()} already")
        self.state = state


class OwnOrder(PermissionError):
    """Whoever ordered it does not decide about it."""


class NotYourOrder(PermissionError):
    """Only who ordered it withdraws it."""


class TakesTooMuch(ValueError):
    """More than is granted and neither held nor owed beyond the credit line; `most_nanos` is how much is."""

    def __init__(self, most_nanos: int) -> None:
        super().__init__(f"at most {most_nanos} nano-units are granted and neither held nor owed")
        self.most_nanos = most_nanos


class CreditLineInUse(ValueError):
    """The organization uses more of its credit line; `used_nanos` is how much, calls under way included."""

    def __init__(self, used_nanos: int) -> None:
        super().__init__(f"{used_nanos} nano-units of the credit line are used")
        self.used_nanos = used_nanos


def order_credit(
    *,
    tenant_id: UUID,
    kind: CreditOrderKind | str,
    amount_nanos: int,
    reason: str,
    actor: audit.Actor,
    policy: CreditPolicy,
    now: datetime,
    expires_at: datetime | None = None,
) -> CreditOrderRow:
    """Order a change of credit. It is carried out at once where the operator may do it alone, else it waits
    for a second operator: `state` of the answer says which.

    amount_nanos: of the wallet's currency; what moves, or the new credit line. expires_at: when what is left
    of given credit goes; None for never. Errors: ReasonMissing (of
    tenants.operations.audit), InvalidOrder, NoWallet, TakesTooMuch, CreditLineInUse.
    """
    kind, reason, operator_id = CreditOrderKind(kind), audit.checked_reason(reason), audit.operator_id(actor)
    lowest = 0 if kind == CreditOrderKind.CREDIT_LINE else 1
    if not lowest <= amount_nanos <= MAX_ORDER_NANOS:
        raise InvalidOrder("the amount is not one that can be ordered")
    if expires_at is not None and (kind not in GIVING_KINDS or expires_at <= now):
        raise InvalidOrder("only what is given ends, and not before it is given")
    with transaction.atomic(using=scope_alias()):
        _lock_orders_of(operator_id)
        wallet = _lock_wallet(tenant_id)
        limit_nanos = _limit(policy, kind, wallet, operator_id, now)
        order = CreditOrder.objects.create(
            tenant_id=tenant_id,
            currency=wallet.currency,
            kind=kind,
            amount_nanos=amount_nanos,
            limit_nanos=limit_nanos,
            reason=reason,
            ordered_by_id=operator_id,
            ordered_at=now,
            expires_at=expires_at,
        )
        before = _balance(wallet, kind)
        if amount_nanos <= limit_nanos:
            _carry_out(order, wallet, None, "", now)
        else:
            _check_possible(order, wallet)
        _record(actor, "credit.order", order, reason, before, _balance(wallet, kind))
    return _row(order.id)


def approve_order(*, order_id: UUID, actor: audit.Actor, now: datetime, reason: str = "") -> CreditOrderRow:
    """A second operator has an order carried out. Of two at once one does, the other gets OrderDecided.

    Errors: OrderNotFound, OrderDecided, OwnOrder, CreditLineInUse, TakesTooMuch.
    """
    operator_id = audit.operator_id(actor)
    with transaction.atomic(using=scope_alias()):
        order = _lock_order(order_id)
        if order.ordered_by_id == operator_id:
            raise OwnOrder("whoever ordered it does not approve it")
        wallet = _lock_wallet(order.tenant_id)
        before = _balance(wallet, order.kind)
        _carry_out(order, wallet, operator_id, _short(reason), now)
        _record(actor, "credit.approve", order, reason, before, _balance(wallet, order.kind))
    return _row(order_id)


def refuse_order(*, order_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> CreditOrderRow:
    """A second operator refuses an order. Errors: ReasonMissing, OrderNotFound, OrderDecided, OwnOrder."""
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with transaction.atomic(using=scope_alias()):
        order = _lock_order(order_id)
        if order.ordered_by_id == operator_id:
            raise OwnOrder("whoever ordered it withdraws it instead")
        _decide(order, CreditOrderState.REFUSED, operator_id, reason, now)
        _record(actor, "credit.refuse", order, reason)
    return _row(order_id)


def withdraw_order(*, order_id: UUID, actor: audit.Actor, now: datetime, reason: str = "") -> CreditOrderRow:
    """The operator takes an order back that waits. Errors: OrderNotFound, OrderDecided, NotYourOrder."""
    operator_id = audit.operator_id(actor)
    with transaction.atomic(using=scope_alias()):
        order = _lock_order(order_id)
        if order.ordered_by_id != operator_id:
            raise NotYourOrder("somebody else ordered it; refuse it instead")
        _decide(order, CreditOrderState.WITHDRAWN, operator_id, _short(reason), now)
        _record(actor, "credit.withdraw", order, reason)
    return _row(order_id)


def _short(reason: str) -> str:
    return " ".join(reason.split())[: audit.MAX_REASON_LENGTH]


def _lock_orders_of(operator_id: UUID) -> None:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{LOCK_TIMEOUT_MS}ms"])
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"credit:{operator_id}"])


def _lock_wallet(tenant_id: UUID) -> Wallet:
    wallet = Wallet.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()
    if wallet is None:
        raise NoWallet("there is no such organization")
    return wallet


def _lock_order(order_id: UUID) -> CreditOrder:
    """The order, which waits."""
    order = CreditOrder.objects.select_for_update(no_key=True).filter(id=order_id).first()
    if order is None:
        raise OrderNotFound("there is no such order")
    if order.state != CreditOrderState.WAITING:
        raise OrderDecided(CreditOrderState(order.state))
    return order


def _limit(
    policy: CreditPolicy, kind: CreditOrderKind, wallet: Wallet, operator_id: UUID, now: datetime
) -> int:
    """How much of this kind the operator can order alone now. Lowering a line needs nobody else."""
    if kind == CreditOrderKind.CREDIT_LINE:
        return max(policy.line_limit_nanos, wallet.overdraft_nanos)
    kinds = GIVING_KINDS if kind in GIVING_KINDS else (kind,)
    alone = given_alone(operator_id=operator_id, tenant_id=wallet.tenant_id, now=now, kinds=kinds)
    return alone.left_nanos(policy)


def _check_possible(order: CreditOrder, wallet: Wallet) -> None:
    """Also before somebody else decides: what cannot be carried out need not wait."""
    if order.kind == CreditOrderKind.CREDIT_LINE:
        used_nanos = max(0, wallet.pending_nanos - wallet.paid_nanos - wallet.granted_nanos)
        if order.amount_nanos < used_nanos:
            raise CreditLineInUse(used_nanos)
    if order.kind == CreditOrderKind.TAKE_BACK:
        most_nanos = _most_to_take_back(wallet)
        if order.amount_nanos > most_nanos:
            raise TakesTooMuch(most_nanos)


def _carry_out(
    order: CreditOrder, wallet: Wallet, decided_by: UUID | None, reason: str, now: datetime
) -> None:
    kind, posted = CreditOrderKind(order.kind), None
    _check_possible(order, wallet)
    if kind == CreditOrderKind.CREDIT_LINE:
        ledger.set_credit_line(tenant_id=order.tenant_id, overdraft_nanos=order.amount_nanos)
        wallet.overdraft_nanos = order.amount_nanos
    else:
        is_taken = kind == CreditOrderKind.TAKE_BACK
        posted = _post(order, kind)
        wallet.granted_nanos += -order.amount_nanos if is_taken else order.amount_nanos
    order.transfer_id = posted
    _decide(order, CreditOrderState.POSTED, decided_by, reason, now)


def _most_to_take_back(wallet: Wallet) -> int:
    """What calls under way do not hold, and what does not keep a debt within the credit line."""
    above_line = wallet.paid_nanos + wallet.overdraft_nanos
    return max(0, wallet.granted_nanos - wallet.pending_nanos + min(0, above_line))


def _post(order: CreditOrder, kind: CreditOrderKind) -> UUID:
    """Post the one transfer that this order's id stands for."""
    key = f"order:{order.id}"
    reason = f"{STATEMENT_WORDS[kind]} ({public_id(PREFIXES['credit_order'], order.id)})"
    if kind == CreditOrderKind.TAKE_BACK:
        ledger.take_back(tenant_id=order.tenant_id, amount_nanos=order.amount_nanos, key=key, reason=reason)
    else:
        give = ledger.grant_credit if kind == CreditOrderKind.GRANT else ledger.make_up
        give(
            tenant_id=order.tenant_id,
            amount_nanos=order.amount_nanos,
            key=key,
            reason=reason,
            expires_at=order.expires_at,
        )
    return transfer_id(TransferKind.GRANT if kind == CreditOrderKind.GRANT else TransferKind.ADJUSTMENT, key)


def _decide(
    order: CreditOrder, state: CreditOrderState, decided_by: UUID | None, reason: str, now: datetime
) -> None:
    order.state, order.decided_by_id, order.decided_at = state, decided_by, now
    order.decision_reason = reason
    order.save(update_fields=["state", "decided_by", "decided_at", "decision_reason", "transfer_id"])


def _balance(wallet: Wallet, kind: str) -> dict[str, int]:
    """What an order of this kind changes."""
    if kind == CreditOrderKind.CREDIT_LINE:
        return {"credit_line_nanos": wallet.overdraft_nanos}
    return {"granted_nanos": wallet.granted_nanos}


def _record(
    actor: audit.Actor,
    action: str,
    order: CreditOrder,
    reason: str,
    balance_before: dict[str, int] | None = None,
    balance_after: dict[str, int] | None = None,
) -> None:
    before: dict[str, object] = {**(balance_before or {})}
    if action != "credit.order":
        before["state"] = CreditOrderState.WAITING.value
    audit.record(
        actor=actor,
        action=action,
        tenant_id=order.tenant_id,
        target=public_id(PREFIXES["credit_order"], order.id),
        before=before,
        after={
            **(balance_after or {}),
            "state": str(order.state),
            "kind": str(order.kind),
            "amount_nanos": order.amount_nanos,
            "alone_up_to_nanos": order.limit_nanos,
            "currency": order.currency,
            "expires_at": order.expires_at.isoformat() if order.expires_at else None,
        },
        reason=reason,
        is_internal=True,
    )


def _row(order_id: UUID) -> CreditOrderRow:
    row = find_order(order_id=order_id)
    assert row is not None
    return row
