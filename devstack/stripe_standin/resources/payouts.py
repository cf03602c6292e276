"""Payouts: what the account gets on its bank account; made by command."""

from __future__ import annotations

from devstack.stripe_standin.resources import balance
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id


def make(world: World, *, only_available: bool) -> list[Obj]:
    """One payout a currency, of everything that was not paid out yet and adds up to more than nothing."""
    balance.settle(world)
    unpaid: dict[str, list[Obj]] = {}
    for transaction in world.store.find(
        "balance_transaction", also="json_extract(body, '$._payout') IS NULL", oldest_first=True
    ):
        if transaction["type"] != "payout" and (not only_available or transaction["status"] == "available"):
            unpaid.setdefault(transaction["currency"], []).append(transaction)
    return [
        _pay_out(world, currency, transactions)
        for currency, transactions in unpaid.items()
        if sum(transaction["net"] for transaction in transactions) > 0
    ]


def _pay_out(world: World, currency: str, transactions: list[Obj]) -> Obj:
    amount = sum(transaction["net"] for transaction in transactions)
    payout: Obj = {
        "id": new_id("po"),
        "object": "payout",
        "amount": amount,
        "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": world.now(),
        "automatic": True,
        "balance_transaction": None,
        "created": world.now(),
        "currency": currency,
        "description": "STRIPE PAYOUT",
        "destination": None,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "original_payout": None,
        "payout_method": None,
        "reconciliation_status": "completed",
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": None,
        "status": "pending",
        "trace_id": None,
        "type": "bank_account",
    }
    movement = balance.move(
        world, "payout", amount=-amount, currency=currency, source=payout["id"], description="STRIPE PAYOUT"
    )
    for transaction in (*transactions, movement):
        transaction["_payout"] = payout["id"]
        world.put(transaction)
    payout["balance_transaction"] = movement["id"]
    world.put(payout)
    world.emit("payout.created", payout)
    payout["status"] = "paid"
    world.put(payout)
    world.emit("payout.paid", payout)
    return payout


@route("GET", "/v1/payouts/{payout}", "payout_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("payout", call.id)


@route("GET", "/v1/payouts", "payout_read")
def list_all(call: Call) -> Obj:
    return listed(call, "payout", "status")
