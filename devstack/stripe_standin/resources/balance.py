"""What moves the account's balance: one balance transaction for each movement, its fee apart."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

AVAILABLE_AFTER_S = 2 * 86_400

_CATEGORIES = {
    "charge": "charge",
    "payment": "charge",
    "refund": "refund",
    "payment_refund": "refund",
    "refund_failure": "refund_failure",
    "payment_failure_refund": "charge_failure",
    "payout": "payout",
}


def processing_fee(world: World, amount: int) -> int:
    """What the account pays for a charge, in the smallest unit of its currency."""
    part = Decimal(amount) * Decimal(str(world.settings.fee_percent)) / 100
    return int(part.quantize(Decimal(1), ROUND_HALF_UP)) + world.settings.fee_fixed


def move(
    world: World,
    kind: str,
    *,
    amount: int,
    currency: str,
    source: str | None,
    fee: int = 0,
    fee_description: str = "Stripe processing fees",
    category: str | None = None,
    description: str | None = None,
) -> Obj:
    """Books a movement. amount and fee: smallest unit, a fee is positive when the account pays it."""
    now = world.now()
    details = [
        {
            "amount": fee,
            "application": None,
            "currency": currency,
            "description": fee_description,
            "type": "stripe_fee",
        }
    ]
    return world.put(
        {
            "id": new_id("txn"),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": now if kind == "payout" else now + AVAILABLE_AFTER_S,
            "balance_type": "payments",
            "created": now,
            "currency": currency,
            "description": description,
            "exchange_rate": None,
            "fee": fee,
            "fee_details": details if fee else [],
            "net": amount - fee,
            "reporting_category": category or _CATEGORIES[kind],
            "source": source,
            "status": "available" if kind == "payout" else "pending",
            "type": kind,
        }
    )


def settle(world: World) -> None:
    """Makes available what is due by the account's clock."""
    due = "json_extract(body, '$.available_on') <= ?"
    now = (world.now(),)
    for transaction in world.store.find("balance_transaction", {"status": "pending"}, also=due, values=now):
        world.put(transaction | {"status": "available"})


@route("GET", "/v1/balance_transactions/{id}", "balance_transaction_source_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("balance_transaction", call.id)


@route("GET", "/v1/balance_transactions", "balance_transaction_source_read")
def list_all(call: Call) -> Obj:
    payout = call.params.text("payout")
    where = {"_payout": payout} if payout else {}
    return listed(call, "balance_transaction", "type", "source", "currency", where=where)
